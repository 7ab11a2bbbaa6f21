//! Why PostgreSQL refused something, in words that may be logged.
//!
//! Guarantees: they contain no value of a row or of a statement.

use tokio_postgres::error::SqlState;

/// tokio-postgres says only "db error"; the reason is in its source. The result contains no value of a row or
/// statement.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    let said = error.to_string();
    if let Some(answer) = error.as_db_error() {
        return format!("{said}: {}", without_values(answer));
    }
    match std::error::Error::source(error).map(ToString::to_string) {
        Some(source) if !said.ends_with(&source) => format!("{said}: {source}"),
        _ => said,
    }
}

/// The server's message and hint. Details quote rows, so they are left out, except those about columns: only they say
/// what a publication lacks. Messages about data quote a value, and those of user-defined functions contain what their
/// author likes.
pub(super) fn without_values(answer: &tokio_postgres::error::DbError) -> String {
    let code = answer.code().code();
    let message = match code.get(..2) {
        Some("22") => without_quoted(answer.message()),
        Some("P0") => {
            format!("a function of the database raised an error ({code}); PostgreSQL's own log has its words")
        }
        _ => answer.message().to_owned(),
    };
    let of_columns = answer.detail().filter(|_| answer.code() == &SqlState::INVALID_COLUMN_REFERENCE);
    let message = of_columns.map_or(message.clone(), |detail| format!("{message}: {detail}"));
    let hint = answer.hint().filter(|_| code.get(..2) != Some("P0"));
    let hint = hint.map_or(String::new(), |hint| format!("\nHINT: {hint}"));
    format!("{}: {message}{hint}", answer.severity())
}

/// A text without its quoted parts, and without everything after bytes in hexadecimal.
fn without_quoted(text: &str) -> String {
    let text = text.split(" 0x").next().unwrap_or(text);
    // A value may contain quotes itself: everything from the first to the last one is left out.
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}\"…\"{}", &text[..first], &text[last + 1..]),
        (Some(first), _) => format!("{}\"…", &text[..first]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_a_message_quotes_is_left_out() {
        for (message, expected) in [
            (r#"invalid input syntax for type uuid: "hunter2""#, r#"invalid input syntax for type uuid: "…""#),
            (r#"value "hunter2" is out of range for type integer"#, r#"value "…" is out of range for type integer"#),
            (r#"invalid value "a"hunter2"b" for x"#, r#"invalid value "…" for x"#),
            (r#"odd "hunter2"#, r#"odd "…"#),
            ("invalid byte sequence for encoding UTF8: 0x68 0x75", "invalid byte sequence for encoding UTF8:"),
            ("value too long for type character varying(10)", "value too long for type character varying(10)"),
        ] {
            assert_eq!(without_quoted(message), expected);
        }
    }
}
