//! `pixeld user` on the command line.

use clap::{Args, Subcommand};

use crate::db::users::{self, Role};

pub(super) const USER_AFTER_HELP: &str = "\
Examples:
  pixeld user add ann
  pixeld user list";

const USER_ADD_AFTER_HELP: &str = "\
Examples:
  pixeld user add ann
  pixeld user add ben@example.com --role viewer
  pass show pixeld/ann | pixeld user add ann --password-stdin";

const USER_LIST_AFTER_HELP: &str = "\
Example:
  pixeld user list";

const USER_REMOVE_AFTER_HELP: &str = "\
Example:
  pixeld user remove ann";

const USER_PASSWORD_AFTER_HELP: &str = "\
Example:
  pixeld user password ann";

/// What can be done with users.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum UserCommand {
    /// Add a user. The command asks for the password twice and does not show it.
    ///
    /// A password must have at least 12 characters and at most 1024 bytes, and must not contain the name.
    #[command(after_help = USER_ADD_AFTER_HELP)]
    Add(UserAddArgs),
    /// List the users: role, date added, name.
    #[command(after_help = USER_LIST_AFTER_HELP)]
    List,
    /// Remove a user, and sign them out everywhere.
    #[command(after_help = USER_REMOVE_AFTER_HELP)]
    Remove(UserNameArgs),
    /// Set a new password for a user, and sign them out everywhere.
    #[command(after_help = USER_PASSWORD_AFTER_HELP)]
    Password(UserPasswordArgs),
}

/// The arguments of `pixeld user add`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UserAddArgs {
    /// The name for signing in, for example an email address; upper and lower case are the same.
    #[arg(value_name = "NAME", value_parser = parse_user)]
    pub name: String,
    /// The role: admins can change, delete and add users, viewers only see.
    #[arg(long, value_name = "admin|viewer", default_value = "admin", value_parser = parse_role)]
    pub role: Role,
    /// Read the password from the first line of standard input instead of asking.
    #[arg(long)]
    pub password_stdin: bool,
}

/// The arguments of `pixeld user password`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UserPasswordArgs {
    /// The user.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Read the password from the first line of standard input instead of asking.
    #[arg(long)]
    pub password_stdin: bool,
}

/// The arguments of `pixeld user remove`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UserNameArgs {
    /// The user.
    #[arg(value_name = "NAME")]
    pub name: String,
}

fn parse_user(text: &str) -> Result<String, String> {
    users::wrong_name(text).map_or(Ok(text.to_owned()), |wrong| Err(wrong.to_owned()))
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::of(text).ok_or("use admin or viewer".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn command(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("pixeld").chain(words.split_whitespace())).map(Cli::into_command)
    }

    #[test]
    fn each_command_is_read() {
        let add = |name: &str, role, password_stdin| {
            UserCommand::Add(UserAddArgs { name: name.to_owned(), role, password_stdin })
        };
        let password = UserPasswordArgs { name: "ann".to_owned(), password_stdin: true };
        for (words, expected) in [
            ("user add ann", add("ann", Role::Admin, false)),
            ("user add Ben --role viewer --password-stdin", add("Ben", Role::Viewer, true)),
            ("user list", UserCommand::List),
            ("user remove ann", UserCommand::Remove(UserNameArgs { name: "ann".to_owned() })),
            ("user password ann --password-stdin", UserCommand::Password(password)),
        ] {
            assert_eq!(command(words).unwrap(), Command::User(expected), "{words}");
        }
    }

    #[test]
    fn a_password_is_never_an_argument_and_a_wrong_name_or_role_is_refused() {
        for words in [
            "user",
            "user add",
            "user add ann secret-password",
            "user add ann --password secret-password",
            "user password ann secret-password",
            "user add ann --role owner",
        ] {
            assert_eq!(command(words).unwrap_err().exit_code(), 2, "{words}");
        }
        let long = "x".repeat(65);
        for name in ["", " ann", "a\nb", &long] {
            let words = ["pixeld", "user", "add", name];
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{name:?}");
        }
    }
}
