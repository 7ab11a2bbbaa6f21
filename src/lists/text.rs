//! From bytes to UTF-8, as they arrive: UTF-16 with a byte order mark is converted, UTF-8 loses its mark. Everything
//! else passes unchanged; a row that is not UTF-8 is refused later.

use super::Problem;

/// The byte order mark of UTF-8.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// A byte that never occurs in UTF-8: replaces half a letter of UTF-16, so that its row is refused.
const NEVER: u8 = 0xff;

/// A list's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    /// Two bytes per unit, the higher one first.
    Utf16Be,
    Utf16Le,
}

/// The converter.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    encoding: Option<Encoding>,
    /// The first bytes, until the encoding is known; then half a unit.
    held: Vec<u8>,
    /// The first half of a surrogate pair.
    high: Option<u16>,
    pub(super) has_mark: bool,
}

impl Decoder {
    /// Appends `chunk`, converted, to `out`.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.encoding == Some(Encoding::Utf8) {
            out.extend_from_slice(chunk);
            return Ok(());
        }
        self.held.extend_from_slice(chunk);
        if self.encoding.is_none() && self.held.len() >= 4 {
            return self.begin(out);
        }
        self.convert(out);
        Ok(())
    }

    /// There is no more.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.encoding.is_none() {
            self.begin(out)?;
        }
        if !self.held.is_empty() || self.high.is_some() {
            out.push(NEVER);
        }
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        // ZIP (new workbooks) and the format of old ones.
        if self.held.starts_with(b"PK\x03\x04") || self.held.starts_with(b"\xd0\xcf\x11\xe0") {
            return Err(Problem::Workbook);
        }
        let others: [(&[u8], _); 3] =
            [(b"\x1f\x8b", "a compressed file"), (b"%PDF", "a PDF"), (b"BZh", "a compressed file")];
        if let Some((_, what)) = others.into_iter().find(|(begin, _)| self.held.starts_with(begin)) {
            return Err(Problem::OtherFile(what));
        }
        let (encoding, mark) = match &self.held[..] {
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
            [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
            _ => (Encoding::Utf8, 0),
        };
        (self.encoding, self.has_mark) = (Some(encoding), mark > 0);
        self.held.drain(..mark);
        if encoding == Encoding::Utf8 {
            out.append(&mut self.held);
        }
        self.convert(out);
        Ok(())
    }

    fn convert(&mut self, out: &mut Vec<u8>) {
        let unit: fn([u8; 2]) -> u16 = match self.encoding {
            Some(Encoding::Utf16Be) => u16::from_be_bytes,
            Some(Encoding::Utf16Le) => u16::from_le_bytes,
            _ => return,
        };
        let (pairs, rest) = self.held.as_chunks::<2>();
        let units = self.high.take().into_iter().chain(pairs.iter().map(|pair| unit(*pair)));
        let mut units = units.peekable();
        while let Some(unit) = units.next() {
            let is_high = (0xd800..0xdc00).contains(&unit);
            if is_high && units.peek().is_none() {
                self.high = Some(unit);
                break;
            }
            let low = units.next_if(|next| is_high && (0xdc00..0xe000).contains(next));
            match char::decode_utf16([Some(unit), low].into_iter().flatten()).next() {
                Some(Ok(letter)) => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => out.push(NEVER),
            }
        }
        self.held = rest.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], cut: usize) -> Result<(Vec<u8>, bool), Problem> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for chunk in bytes.chunks(cut.max(1)) {
            decoder.push(chunk, &mut out)?;
        }
        decoder.end(&mut out)?;
        Ok((out, decoder.has_mark))
    }

    proptest! {
        #[test]
        fn utf_16_is_the_same_text_however_it_is_cut(text in "\\PC{0,20}", cut in 1usize..9) {
            for is_little in [true, false] {
                let bytes: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16())
                    .flat_map(|unit| if is_little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect();
                prop_assert_eq!(read(&bytes, cut), Ok((text.clone().into_bytes(), true)));
            }
        }
    }

    #[test]
    fn marks_go_and_halves_of_letters_are_no_utf_8() {
        assert_eq!(read(b"\xef\xbb\xbfid", 1), Ok((b"id".to_vec(), true)));
        assert_eq!(read(b"id", 1), Ok((b"id".to_vec(), false)));
        assert_eq!(read(b"\xff\xfea\0b", 1), Ok((b"a\xff".to_vec(), true)));
        assert_eq!(read(b"\xff\xfe\0\xd8a\0", 1), Ok((b"\xffa".to_vec(), true)));
        assert_eq!(read(b"\xff\xfe\0\xd8", 1), Ok((b"\xff".to_vec(), true)));
        assert_eq!(read(b"PK\x03\x04x", 1), Err(Problem::Workbook));
    }
}
