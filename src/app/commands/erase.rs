//! `pixeld erase`: erases a recipient, and shows which nodes have done so.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::typed_recipient;
use crate::app::options::node_name;
use crate::app::{DataDir, database, which};
use crate::cli::EraseArgs;
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::{Database, QUERY_TIMEOUT, installation, within};
use crate::erasure::receipts::{self, Receipt};
use crate::erasure::{nodes, request};

/// Maximum receipts that `--status` shows.
const SHOWN_MAX: i64 = 50;

/// Wait between two checks of the receipt.
const WAIT_PAUSE: Duration = Duration::from_millis(500);

/// `pixeld erase`: records the erasure, deletes hits and opens, and shows the receipt. Never prints the recipient.
///
/// # Errors
/// If the key is invalid, or on a database error; the nodes, or another run, finish what is left.
pub(crate) async fn erase(config: &Config, args: &EraseArgs) -> anyhow::Result<()> {
    let typed = args.recipient.as_deref().map(typed_recipient).transpose()?;
    let db = which::find(config)?;
    let broken_off = "pixeld serve finishes the erasure; pixeld erase --status shows its progress";
    database::with_database(&db, broken_off, run(config, &db, typed.as_deref(), args)).await
}

async fn run(config: &Config, db: &Database, typed: Option<&str>, args: &EraseArgs) -> anyhow::Result<()> {
    let session = db.connect("pixeld erase").await?;
    let client = &session.client;
    let named = match typed {
        Some(typed) => {
            let recipient = installation::recipient_typed(client, typed).await?;
            let key = within(QUERY_TIMEOUT, "reading the key", installation::privacy_key(client)).await?;
            Some((recipient, key.hash(recipient)))
        }
        None => None,
    };
    let place = which::named(db, client).await?;
    if args.status {
        let reading = async {
            match named {
                Some((_, hash)) => receipts::of_recipient(client, hash, SHOWN_MAX).await,
                None => receipts::latest(client, None, SHOWN_MAX).await,
            }
        };
        let receipts = within(QUERY_TIMEOUT, "reading receipts", reading).await?;
        if receipts.is_empty() {
            println!("there are no erasures in {place}");
        }
        receipts.iter().for_each(|receipt| println!("{}", shown(receipt, &place)));
        return Ok(());
    }
    let Some((recipient, hash)) = named else { anyhow::bail!("--recipient is missing") };
    register_this(config, client).await?;
    let erasure = request::request(client, COMMAND_LINE, hash, false).await?;
    request::delete(db, erasure, recipient).await?;
    loop {
        let receipt = within(QUERY_TIMEOUT, "reading a receipt", receipts::find(client, erasure)).await?;
        let receipt = receipt.context("the erasure is gone")?;
        if receipt.is_final() || !args.wait {
            println!("{}", shown(&receipt, &place));
            return Ok(());
        }
        tokio::time::sleep(WAIT_PAUSE).await;
    }
}

/// Registers this machine, so that hits on its disk count even if its `pixeld serve` never ran in this version.
async fn register_this(config: &Config, client: &tokio_postgres::Client) -> anyhow::Result<()> {
    let data = DataDir::look(&config.storage.data_dir);
    if data.has_spools() {
        within(QUERY_TIMEOUT, "registering this node", nodes::register(client, data.node()?, &node_name())).await?;
    }
    Ok(())
}

/// A receipt in words.
fn shown(receipt: &Receipt, place: &str) -> String {
    let mut text = String::new();
    let mut line = |words: String| text.write_fmt(format_args!("{words}\n")).unwrap_or_default();
    line(format!(
        "erasure {} of the recipient with the hash {}, requested {}",
        receipt.id,
        receipt.recipient,
        at(receipt.requested_at)
    ));
    line(format!("  of {place}"));
    if let Some(put_back_at) = receipt.put_back_at {
        line(format!("  restored {} by a node that remembered it", at(put_back_at)));
    }
    let deleted = format!("{} hits and {} opens deleted", receipt.hits, receipt.opens);
    line(match receipt.deleted_at {
        Some(deleted_at) => format!("  database: done {}, {deleted}", at(deleted_at)),
        None => format!("  database: not done yet, {deleted} so far"),
    });
    for done in &receipt.done {
        let (segments, hits, files) = (done.on_disk.segments, done.on_disk.hits, done.on_disk.files);
        line(format!(
            "  node {} ({}): done {}, {hits} hits in {segments} segments and {files} quarantined files",
            done.name,
            done.node,
            at(done.done_at)
        ));
    }
    for node in &receipt.outstanding {
        line(format!("  node {} ({}): not done yet, last seen {}", node.name, node.node, at(node.seen_at)));
    }
    line(if receipt.is_final() { "  this receipt is final".to_owned() } else { "  not final yet".to_owned() });
    text.trim_end().to_owned()
}

fn at(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}
