//! `pixeld message`: what only a message's sender knows, and its opens.

use std::io::Write;

use anyhow::Context;
use uuid::Uuid;

use crate::app::{database, which};
use crate::cli::MessageSetArgs;
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::installation;
use crate::db::messages::{self, Change};
use pixeld_core::link::key::Key;

/// Maximum messages that are listed.
const LISTED_MAX: i64 = 50;

/// `pixeld message set`.
///
/// # Errors
/// If the key is invalid, or on a database error.
pub(crate) async fn message_set(config: &Config, args: &MessageSetArgs) -> anyhow::Result<()> {
    let key = Key::typed(&args.message).with_context(|| format!("{:?} cannot be a message", args.message))?;
    anyhow::ensure!(key != Key::Id(Uuid::nil()), "the nil UUID means \"none\", so it cannot be a message");
    let change = Change { name: args.name.clone(), sent_at_s: args.sent_at.into(), sent_count: args.sent_count.into() };
    let db = which::find(config)?;
    let changing = async {
        let session = db.connect("pixeld message").await?;
        // Use this database's namespace, not this node's copy: an id from another namespace would belong to no message.
        let id = installation::namespace(&session.client).await?.id_of(&key);
        let had_hits = messages::change(&session.client, COMMAND_LINE, id, &change).await?;
        Ok((id, had_hits, which::named(&db, &session.client).await?))
    };
    let (id, had_hits, named) = database::with_database(&db, database::NOT_KNOWN, changing).await?;
    if !had_hits {
        eprintln!("this message has no hits yet; later hits will count under this name");
    }
    println!("{id}");
    eprintln!("changed in {named}");
    Ok(())
}

/// `pixeld message list`.
pub(crate) async fn message_list(config: &Config) -> anyhow::Result<()> {
    let db = which::find(config)?;
    let listing = async {
        let session = db.connect("pixeld message").await?;
        Ok(messages::latest(&session.client, LISTED_MAX).await?)
    };
    let listed = database::with_database(&db, database::NOTHING_CHANGED, listing).await?;
    let mut out = std::io::stdout().lock();
    let (id, confirmed, possible, machine, hits, sent) =
        ("message", "confirmed", "possible", "machine", "hits", "sent to");
    writeln!(out, "{id:<36}  {confirmed:>9}  {possible:>9}  {machine:>9}  {hits:>9}  {sent:>9}  name")?;
    for message in listed {
        let sent = message.sent_count.map_or("?".to_owned(), |count| count.to_string());
        let (id, name) = (message.id, message.name.escape_debug());
        let (confirmed, possible, machine, hits) = (message.confirmed, message.possible, message.machine, message.hits);
        writeln!(out, "{id:<36}  {confirmed:>9}  {possible:>9}  {machine:>9}  {hits:>9}  {sent:>9}  {name}")?;
    }
    Ok(())
}
