//! `pixeld opt-out`: stops recording a recipient, or starts again.

use time::format_description::well_known::Rfc3339;

use super::typed_recipient;
use crate::app::{database, which};
use crate::cli::OptOutArgs;
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::{QUERY_TIMEOUT, installation, within};
use crate::opt_outs::suppressions;

/// `pixeld opt-out`: prints a receipt, which names the recipient by the hash that is in the audit.
///
/// # Errors
/// If the key is invalid, or on a database error.
pub(crate) async fn opt_out(config: &Config, args: &OptOutArgs) -> anyhow::Result<()> {
    let typed = typed_recipient(&args.recipient)?;
    let db = which::find(config)?;
    let changing = async {
        let session = db.connect("pixeld opt-out").await?;
        let client = &session.client;
        // Use this database's namespace, not this node's copy: under another one the key would be another person.
        let recipient = installation::recipient_typed(client, &typed).await?;
        let key = within(QUERY_TIMEOUT, "reading the key", installation::privacy_key(client)).await?;
        let hash = key.hash(recipient);
        let receipt = if args.undo {
            within(QUERY_TIMEOUT, "taking an opt-out back", suppressions::opt_in(client, COMMAND_LINE, hash)).await?
        } else {
            within(QUERY_TIMEOUT, "opting out", suppressions::opt_out(client, COMMAND_LINE, hash)).await?
        };
        Ok((hash, receipt, which::named(&db, client).await?))
    };
    let (hash, receipt, named) = database::with_database(&db, database::NOT_KNOWN, changing).await?;
    let since = receipt.since.map(|at| at.format(&Rfc3339)).transpose()?;
    let state = match (args.undo, receipt.is_new, since) {
        (false, true, Some(since)) => {
            format!("opted out since {since}; every node applies this within about 2 seconds")
        }
        (false, _, since) => format!("already opted out since {}; nothing changed", since.unwrap_or_default()),
        (true, true, Some(since)) => {
            format!("recorded again since {since}; every node applies this within about 2 seconds")
        }
        (true, _, Some(since)) => format!("already recorded again since {since}; nothing changed"),
        (true, _, None) => "was never opted out; nothing changed".to_owned(),
    };
    println!("recipient {hash} {state}\n{named}");
    Ok(())
}
