//! Texts that people type or strangers send: compared, searched for, and shown. Pure.
//!
//! Guarantees: names that differ only in case, width or composition are equal ([`fold`]), whatever the language of the
//! database or the machine is. Hidden and reversing characters of a text become visible ([`visible`]). Gives up:
//! similar letters of different scripts; and that dotted and dotless i are two letters in Turkish: here they are equal,
//! so that a keyboard locks nobody out.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The text in the form in which it is compared: without case, in one composition and width.
pub fn fold(text: &str) -> String {
    let lower = |c: char| c.to_lowercase();
    let mut folded = String::with_capacity(text.len());
    let mut is_i = false;
    for c in text.nfkc() {
        // The lower case of İ in all languages but Turkish: an i with a combining dot.
        if is_i && c == '\u{307}' {
            continue;
        }
        is_i = matches!(c, 'i' | 'I' | 'İ' | 'ı') || (is_i && is_combining_mark(c));
        match c {
            'İ' | 'ı' => folded.push('i'),
            'ß' | 'ẞ' => folded.push_str("ss"),
            'ς' => folded.push('σ'),
            c => folded.extend(lower(c)),
        }
    }
    // Lower case may be composed differently.
    folded.nfkc().collect()
}

/// A regular expression of PostgreSQL for texts that contain these words in any case, even if the database's language
/// knows only ASCII case.
pub fn pattern(words: &str) -> String {
    let folded = fold(words);
    let mut pattern = String::with_capacity(folded.len() * 8);
    let mut letters = folded.chars().peekable();
    while let Some(c) = letters.next() {
        if c == 's' && letters.next_if_eq(&'s').is_some() {
            pattern.push_str("(?:[sS][sS]|ß|ẞ)");
            continue;
        }
        let mut forms: Vec<String> = match c {
            'i' => ["i", "I", "İ", "ı", "i\u{307}", "I\u{307}"].map(str::to_owned).to_vec(),
            'σ' => ["σ", "ς", "Σ"].map(str::to_owned).to_vec(),
            c => vec![c.to_string(), c.to_uppercase().collect()],
        };
        let apart: Vec<String> = forms.iter().map(|form| form.nfd().collect()).collect();
        forms.extend(apart);
        forms.sort_unstable();
        forms.dedup();
        let escaped: Vec<String> = forms.iter().map(|form| escaped(form)).collect();
        match &escaped[..] {
            [one] => pattern.push_str(one),
            several => pattern.push_str(&format!("(?:{})", several.join("|"))),
        }
    }
    pattern
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c])).collect()
}

/// Whether a character reverses the direction of a text, or ends its line.
fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{206a}'..='\u{206f}')
}

/// Whether a character is invisible and has no use within a word: with it, two names look alike.
fn hides(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{180e}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
    )
}

/// Whether a text may not be a title or a message's name: it has control characters, or such that reverse its
/// direction. Merely invisible ones are allowed, since Hebrew and Arabic need some, and emoji are joined by one.
pub fn has_controls(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || turns(c))
}

/// Whether a text may not be a user's name: that allows no invisible ones, either.
pub fn has_hidden(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || turns(c) || hides(c) || matches!(c, '\u{200c}' | '\u{200d}'))
}

/// The text with reversing and hidden characters written out: `[U+202E]`.
pub fn visible(text: &str) -> Cow<'_, str> {
    written_out(text, |c, _| turns(c) || hides(c))
}

/// The same for a page of ours. Values of fields keep characters that only hide: otherwise saving the form would save
/// the written-out form.
pub fn visible_page(page: &str) -> Cow<'_, str> {
    written_out(page, |c, is_in_tag| turns(c) || (hides(c) && !is_in_tag))
}

fn written_out(text: &str, is_it: impl Fn(char, bool) -> bool) -> Cow<'_, str> {
    if text.is_ascii() || !text.contains(|c| turns(c) || hides(c)) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 64);
    let mut is_in_tag = false;
    for c in text.chars() {
        // A page has `<` and `>` only around its tags.
        is_in_tag = c == '<' || (is_in_tag && c != '>');
        if is_it(c, is_in_tag) {
            out.push_str(&format!("[U+{:04X}]", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_differ_in_case_only_are_one() {
        for alike in [
            &["ÄNNE", "änne", "Änne", "A\u{308}NNE", "a\u{308}nne"][..],
            &["STRASSE", "straße", "STRAẞE", "Strasse"],
            &["İLKER", "ilker", "ILKER", "ılker", "I\u{307}LKER", "i\u{307}lker"],
            &["ΣΟΦΟΣ", "σοφος", "σοφοσ"],
            &["ЖЕНЯ", "женя"],
            &["ａｎｎ", "ann", "ANN"],
        ] {
            for name in alike {
                assert_eq!(fold(name), fold(alike[0]), "{name}");
            }
        }
        assert_ne!(fold("änne"), fold("anne"));
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once_and_case_makes_no_difference(text in "\\PC{0,12}") {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded.clone());
            prop_assert_eq!(fold(&text.to_lowercase()), folded);
        }
    }

    #[test]
    fn what_turns_a_text_around_is_written_out() {
        assert_eq!(visible("gif\u{202e}gpj.exe"), "gif[U+202E]gpj.exe");
        assert_eq!(visible("a\u{200b}b\u{feff}"), "a[U+200B]b[U+FEFF]");
        for plain in ["Jäne", "👩\u{200d}💻", "می\u{200c}خواهم", "<b>"] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
        let page = "<p title=\"\u{200f}x\u{202e}\">\u{200f}y</p>";
        assert_eq!(visible_page(page), "<p title=\"\u{200f}x[U+202E]\">[U+200F]y</p>");
        assert!(has_controls("a\u{202e}") && has_controls("a\nb") && !has_controls("👩\u{200d}💻 שלום\u{200f}"));
        assert!(has_hidden("a\u{200d}b") && has_hidden("\u{200f}") && !has_hidden("Änne"));
    }

    #[test]
    fn a_pattern_has_every_case_and_nothing_of_its_words_is_a_sign() {
        assert_eq!(pattern("a."), "(?:A|a)\\.");
        assert_eq!(pattern("ẞ"), "(?:[sS][sS]|ß|ẞ)");
        assert_eq!(pattern("ä"), "(?:A\u{308}|a\u{308}|Ä|ä)");
        assert_eq!(pattern("7 (%_\\"), "7 \\(\\%\\_\\\\");
    }
}
