//! What the help of every command must contain: an example that works, and the default and the unit of each value.

use clap::{Arg, Command, CommandFactory, Parser};

use super::Cli;

/// Every command with the words that call it, the groups and the program itself included.
fn commands() -> Vec<(String, Command)> {
    fn collect(words: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        all.push((words.to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            collect(&format!("{words} {}", inner.get_name()), inner, all);
        }
    }
    let mut all = Vec::new();
    collect("pixeld", &Cli::command(), &mut all);
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// The command lines of `pixeld` in a help's examples: the indented lines below it, without shell syntax around them.
fn examples(command: &Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n     ", "");
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    let called = lines.filter_map(|line| {
        let at = line.match_indices("pixeld").find(|&(at, word)| {
            let before = line[..at].chars().next_back();
            let behind = line[at + word.len()..].chars().next();
            before.is_none_or(|c| c == ' ' || c == '(') && behind.is_none_or(|c| c == ' ')
        });
        let call = &line[at?.0..];
        let end = ["   ", " | ", " > ", " && ", ")\""].iter().filter_map(|stop| call.find(stop)).min();
        Some(call[..end.unwrap_or(call.len())].to_owned())
    });
    called.collect()
}

/// Words as a shell splits them; only single quotes are supported.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (part, text) in line.split('\'').enumerate() {
        for (n, piece) in if part % 2 == 1 { vec![text] } else { text.split(' ').collect() }.into_iter().enumerate() {
            if n > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(piece);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_has_an_example_of_itself_and_every_example_is_understood() {
    for (called, command) in commands() {
        let examples = examples(&command);
        assert!(examples.iter().any(|line| line.starts_with(&called)), "{called} has no example: {examples:?}");
        for line in examples {
            if let Err(error) = Cli::try_parse_from(words(&line)) {
                panic!("the example {line:?} of {called} is not understood: {error}");
            }
        }
    }
}

/// What is missing in an option's help; `None` if nothing is.
fn missing(argument: &Arg) -> Option<&'static str> {
    let texts = [argument.get_help(), argument.get_long_help()];
    let help = texts.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if help.is_empty() {
        return Some("what it does");
    }
    if !argument.get_action().takes_values() {
        return None;
    }
    if !argument.is_required_set() && argument.get_default_values().is_empty() && !help.contains("default: ") {
        return Some("its default, as \"default: …\"");
    }
    let names = argument.get_value_names().unwrap_or_default();
    let says = |what: &[&str]| what.iter().all(|what| help.contains(what));
    match names.first().map(clap::builder::Str::as_str) {
        Some("TIME") => (!says(&["2026-05-04T09:00:00Z", "s since 1970"])).then_some("the forms of a time"),
        Some("COUNT") => (!says(&["or more"])).then_some("which numbers may be"),
        Some("UUID|KEY") => (!says(&["UUID", "key"])).then_some("that it takes a UUID or a key"),
        Some("UUID" | "KEY" | "NAME" | "TITLE" | "FILE" | "DIR" | "URL" | "admin|viewer") => None,
        _ => Some("a kind of value that this test knows: say here what its help must tell, its unit for example"),
    }
}

#[test]
fn every_option_says_what_it_does_its_default_and_its_unit() {
    for (called, command) in commands() {
        assert!(command.get_about().is_some(), "{called}");
        let told = command.get_arguments().filter(|argument| !argument.is_hide_set());
        for argument in told.filter(|argument| !["help", "version"].contains(&argument.get_id().as_str())) {
            assert_eq!(missing(argument), None, "is not said by {called} of {}", argument.get_id());
        }
    }
}

#[test]
fn an_option_with_too_little_help_is_found() {
    let of = |help: &'static str, value: &'static str| Arg::new("x").long("x").value_name(value).help(help);
    assert_eq!(missing(&of("When; default: now.", "TIME")), Some("the forms of a time"));
    assert_eq!(missing(&of("A file.", "FILE")), Some("its default, as \"default: …\""));
    assert_eq!(missing(&of("A file.", "FILE").required(true)), None);
    assert_eq!(missing(&of("A file.", "FILE").default_value("-")), None);
    assert!(missing(&of("How long; default: 5.", "SECONDS")).is_some());
    assert_eq!(missing(&Arg::new("x").long("x")), Some("what it does"));
}
