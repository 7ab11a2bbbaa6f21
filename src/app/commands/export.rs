//! `pixeld export`: all that is held on a recipient, as JSON.

use std::io::{self, BufWriter, Write};

use crate::app::database;
use crate::cli::ExportArgs;
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::{Database, export};
use crate::shutdown;

use super::erase::{recipient_of, typed_recipient};

/// `pixeld export`: one JSON object on standard output, written as it is read.
///
/// # Errors
/// Where the key can be none, or as PostgreSQL says; what was written is no whole JSON then.
pub async fn export(config: &Config, args: &ExportArgs) -> anyhow::Result<()> {
    let typed = typed_recipient(&args.recipient)?;
    let db = Database::new(config)?;
    let lease = database::open(&db).await?;
    let outcome = tokio::select! {
        outcome = write(&db, &typed) => outcome,
        signal = shutdown::signal() => match signal {
            Ok(signal) => Err(anyhow::anyhow!("stopped by {signal}; what was written is not whole")),
            Err(error) => Err(error.into()),
        },
    };
    lease.release().await?;
    outcome
}

async fn write(db: &Database, typed: &str) -> anyhow::Result<()> {
    let session = db.connect("pixeld export").await?;
    let client = &session.client;
    let (recipient, key) = recipient_of(client, typed).await?;
    let hash = key.hash(recipient);
    let known = export::begin(client, COMMAND_LINE, hash).await?;
    // A lock on standard output cannot be held while PostgreSQL is waited for.
    let mut out = BufWriter::new(io::stdout());
    writeln!(out, "{{\"recipient\": \"{recipient}\",\n\"hash\": \"{hash}\",")?;
    writeln!(out, "\"exported_at\": {},", serde_json::to_string(&known.exported_at)?)?;
    writeln!(out, "\"opt_out\": {},", known.opt_out.as_deref().unwrap_or("null"))?;
    writeln!(out, "\"erasures\": [{}],", known.erasures.join(", "))?;
    write!(out, "\"opens\": [")?;
    let mut items = Items::default();
    export::opens(client, recipient, |open| items.write(&mut out, open)).await?;
    write!(out, "],\n\"hits\": [")?;
    let mut items = Items::default();
    export::hits(client, recipient, |hit| items.write(&mut out, hit)).await?;
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

/// Items of a JSON list, one a line.
#[derive(Default)]
struct Items {
    has_any: bool,
}

impl Items {
    fn write(&mut self, out: &mut impl Write, item: &str) -> io::Result<()> {
        let before = if std::mem::replace(&mut self.has_any, true) { ",\n  " } else { "\n  " };
        out.write_all(before.as_bytes())?;
        out.write_all(item.as_bytes())
    }
}
