//! `pixeld export`: all data about a recipient, as JSON.

use std::io::{self, Write};

use bytes::Bytes;

use super::typed_recipient;
use crate::app::{database, which};
use crate::cli::ExportArgs;
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::export::{Export, Sink};
use crate::db::{Database, QUERY_TIMEOUT, installation, within};

/// `pixeld export`: one JSON object on standard output, written as it is read.
///
/// # Errors
/// If the key is invalid, or on a database error; what was written is then not complete JSON.
pub(crate) async fn export(config: &Config, args: &ExportArgs) -> anyhow::Result<()> {
    let typed = typed_recipient(&args.recipient)?;
    let db = which::find(config)?;
    database::with_database(&db, "the output is incomplete", write(&db, &typed)).await
}

async fn write(db: &Database, typed: &str) -> anyhow::Result<()> {
    let session = db.connect("pixeld export").await?;
    let client = &session.client;
    let recipient = installation::recipient_typed(client, typed).await?;
    let key = within(QUERY_TIMEOUT, "reading the key", installation::privacy_key(client)).await?;
    let export = Export::begin(client, COMMAND_LINE, recipient, key.hash(recipient)).await?;
    export.write(client, &mut StandardOutput).await?;
    Ok(io::stdout().flush()?)
}

/// Nothing else waits in this process, so it may block.
struct StandardOutput;

impl Sink for StandardOutput {
    async fn take(&mut self, part: Bytes) -> io::Result<()> {
        io::stdout().write_all(&part)
    }
}
