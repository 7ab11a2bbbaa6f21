//! stub
use std::path::PathBuf; use uuid::Uuid;
#[derive(clap::Parser)] pub struct Cli { #[command(subcommand)] command: Option<Command> }
#[derive(clap::Subcommand)] pub enum Command { Serve { #[arg(long)] sample: bool }, Migrate, DatabaseUrl, #[command(subcommand)] Image(ImageCommand), #[command(subcommand)] Spool(SpoolCommand), Healthcheck }
#[derive(clap::Subcommand)] pub enum ImageCommand { Add{file:PathBuf,#[arg(long)]id:Option<Uuid>,#[arg(long)]title:Option<String>}, List }
#[derive(clap::Subcommand)] pub enum SpoolCommand { Status, Drain }
impl Cli { pub fn command(self)->Command { self.command.unwrap_or(Command::Serve{sample:false}) } }
