//! `pixeld user`: the users of the admin page.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context;

use crate::admin::password;
use crate::app::{database, which};
use crate::cli::{UserAddArgs, UserPasswordArgs};
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::users::{self, User};
use crate::db::{DbError, QUERY_TIMEOUT, Session, within};

/// `pixeld user add`.
///
/// # Errors
/// If the name is taken, if the password is not allowed, or on a database error.
pub(crate) async fn user_add(config: &Config, args: &UserAddArgs) -> anyhow::Result<()> {
    let hash = new_password(&args.name, args.password_stdin)?;
    let added = with_session(config, async |session| {
        let adding = users::add(&session.client, COMMAND_LINE, &args.name, args.role, &hash);
        within(QUERY_TIMEOUT, "adding a user", adding).await
    });
    anyhow::ensure!(
        added.await?.is_some(),
        "a user {:?} already exists; pixeld user password sets a new password",
        args.name
    );
    println!("{} ({}) can sign in at {}", args.name, args.role.word(), config.listen.admin_base_url);
    eprintln!("added to {}", which::find(config)?.whereabouts());
    Ok(())
}

/// `pixeld user list`.
pub(crate) async fn user_list(config: &Config) -> anyhow::Result<()> {
    let listed = with_session(config, async |session| {
        within(QUERY_TIMEOUT, "listing users", users::list(&session.client)).await
    });
    let mut out = std::io::stdout().lock();
    for User { name, role, created_at, disabled_at, .. } in listed.await? {
        let disabled = if disabled_at.is_some() { "  (disabled)" } else { "" };
        writeln!(out, "{:<6}  {}  {name}{disabled}", role.word(), created_at.date())?;
    }
    Ok(())
}

/// `pixeld user remove`.
///
/// # Errors
/// If there is no such user, or on a database error.
pub(crate) async fn user_remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let removed = with_session(config, async |session| {
        within(QUERY_TIMEOUT, "removing a user", users::remove(&session.client, COMMAND_LINE, name)).await
    });
    anyhow::ensure!(removed.await?, "there is no user {name:?}");
    println!("{name} was removed and signed out everywhere");
    Ok(())
}

/// `pixeld user password`.
///
/// # Errors
/// If there is no such user, if the password is not allowed, or on a database error.
pub(crate) async fn user_password(config: &Config, args: &UserPasswordArgs) -> anyhow::Result<()> {
    let hash = new_password(&args.name, args.password_stdin)?;
    let changed = with_session(config, async |session| {
        let setting = users::set_password(&session.client, COMMAND_LINE, &args.name, &hash);
        within(QUERY_TIMEOUT, "changing a password", setting).await
    });
    anyhow::ensure!(changed.await?, "there is no user {:?}", args.name);
    println!("{} has a new password and is signed out everywhere", args.name);
    Ok(())
}

async fn with_session<T>(config: &Config, work: impl AsyncFnOnce(&Session) -> Result<T, DbError>) -> anyhow::Result<T> {
    let db = which::find(config)?;
    let working = async { Ok(work(&db.connect("pixeld user").await?).await?) };
    database::with_database(&db, database::NOT_KNOWN, working).await
}

/// Asks for a new password twice, or reads it from standard input, and hashes it. This happens before the database is
/// opened, since people type slowly.
fn new_password(name: &str, from_stdin: bool) -> anyhow::Result<String> {
    let password = if from_stdin {
        read_line(std::io::stdin().lock())?
    } else {
        anyhow::ensure!(
            std::io::stdin().is_terminal(),
            "there is no terminal to ask for the password; send it to standard input with --password-stdin"
        );
        let first = rpassword::prompt_password(format!("Password for {name} (at least 12 characters): "))?;
        anyhow::ensure!(first == rpassword::prompt_password("Repeat the password: ")?, "the two passwords differ");
        first
    };
    match password::wrong_password(&password, name) {
        Some(wrong) => anyhow::bail!("this password is refused: {wrong}"),
        None => password::hash(&password),
    }
}

/// The first line without its line break; of a line longer than any password, just enough to see that.
fn read_line(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = Vec::new();
    input.take(password::BYTES_MAX as u64 + 3).read_until(b'\n', &mut line).context("cannot read the password")?;
    let line = String::from_utf8(line).context("the password is not UTF-8")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for (input, password) in [("a b\n", "a b"), ("a b\r\n", "a b"), (" a\nrest", " a"), ("a", "a"), ("", "")] {
            assert_eq!(read_line(input.as_bytes()).unwrap(), password, "{input:?}");
        }
        assert!(read_line("x".repeat(1 << 20).as_bytes()).unwrap().len() > password::BYTES_MAX);
        assert!(read_line(&b"\xff\n"[..]).is_err());
    }
}
