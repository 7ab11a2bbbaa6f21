//! The command line: settings, then the command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use time::OffsetDateTime;

use super::commands;
use crate::cli::{
    Cli, Command, ImageCommand, ImportCommand, MessageCommand, NetworksCommand, SpoolCommand, UserCommand,
};
use crate::config::{Config, EXIT_CONFIG, Reader, may_hold_password};
use crate::db::DbError;
use crate::{app, db, telemetry};

/// Runs what the arguments of this process ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let command = cli.into_command();
    let reader = if matches!(command, Command::Serve(_)) { Reader::Serve } else { Reader::Command };
    let config = match Config::load(reader) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let _telemetry = telemetry::start(&config.telemetry);
    match run(command, &config) {
        Ok(code) => code,
        Err(error) => {
            // Not eprintln: a closed terminal must not cause a panic.
            drop(writeln!(std::io::stderr(), "pixeld: {}", db::describe(&error)));
            let is_other = error.downcast_ref::<DbError>().is_some_and(DbError::is_of_installation);
            if is_other || error.is::<app::NoInstallation>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// Says what is wrong with the command line, without any argument that may contain a password.
fn refuse(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `pixeld user add ann secret` has a password where none is expected.
    let is_of_user = arguments.first().is_some_and(|command| command == "user");
    let hidden = |(place, argument): &(usize, String)| {
        may_hold_password(argument) || (is_of_user && *place > 2 && !argument.starts_with('-'))
    };
    let mut hidden: Vec<String> =
        arguments.into_iter().enumerate().filter(hidden).map(|(_, argument)| argument).collect();
    if hidden.is_empty() || !error.use_stderr() {
        // As clap prints it, with colours.
        drop(error.print());
    } else {
        // The message may quote its value without the option before it.
        let values: Vec<String> =
            hidden.iter().filter_map(|argument| Some(argument.split_once('=')?.1.to_owned())).collect();
        hidden.extend(values);
        hidden.retain(|argument| !argument.is_empty());
        hidden.sort_by_key(|argument| std::cmp::Reverse(argument.len()));
        let words =
            hidden.iter().fold(error.to_string(), |words, argument| words.replace(argument.as_str(), "(not shown)"));
        drop(writeln!(std::io::stderr(), "{}", words.trim_end()));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Import(ImportCommand::Django(args)) => {
            return wait(commands::import_django(config, &args)).map(|taken| ExitCode::from(taken.exit_status()));
        }
        Command::Serve(args) => app::serve(config, args.sample),
        Command::Migrate(args) => wait(commands::migrate(config, args.new_installation)),
        Command::DatabaseUrl => commands::database_url(config),
        Command::Image(ImageCommand::Add(args)) => {
            wait(commands::image_add(config, &args.file, args.id, args.title.as_deref()))
        }
        Command::Image(ImageCommand::List) => wait(commands::image_list(config)),
        Command::Link(args) => wait(commands::link(config, &args)),
        Command::OptOut(args) => wait(commands::opt_out(config, &args)),
        Command::Namespace(args) => wait(commands::namespace(config, &args.keys)),
        Command::Message(MessageCommand::Set(args)) => wait(commands::message_set(config, &args)),
        Command::Message(MessageCommand::List) => wait(commands::message_list(config)),
        Command::User(UserCommand::Add(args)) => wait(commands::user_add(config, &args)),
        Command::User(UserCommand::List) => wait(commands::user_list(config)),
        Command::User(UserCommand::Remove(args)) => wait(commands::user_remove(config, &args.name)),
        Command::User(UserCommand::Password(args)) => wait(commands::user_password(config, &args)),
        Command::Networks(NetworksCommand::Update(args)) => commands::networks_update(config, &args),
        Command::Networks(NetworksCommand::Status) => commands::networks_status(config),
        Command::Reclassify(args) => {
            let since = args.since.map(|seconds| OffsetDateTime::from_unix_timestamp(i64::from(seconds)));
            wait(commands::reclassify(config, since.transpose()?))
        }
        Command::Spool(SpoolCommand::Status) => wait(commands::spool_status(config)),
        Command::Export(args) => wait(commands::export(config, &args)),
        Command::Erase(args) => wait(commands::erase(config, &args)),
        Command::Spool(SpoolCommand::Drain(args)) => commands::spool_drain(config, args.retire),
        Command::Healthcheck => wait(commands::healthcheck(config)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn wait<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
