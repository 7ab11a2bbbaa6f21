//! The ledger against PostgreSQL: each answered request must have one row, and no row may exist without a request.

use std::pin::pin;

use anyhow::Context;
use futures_util::StreamExt;
use tokio_postgres::NoTls;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::Type;

use crate::ledger::{Comparison, Ledger};
use crate::pixels::Pixels;
use pixeld_core::ids::RecipientId;

/// Reads the rows of a load and compares.
pub fn reconcile(database_url: &str, pixels: &Pixels, ledger: &Ledger) -> anyhow::Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(database_url, NoTls).await.context("PostgreSQL")?;
        #[expect(clippy::disallowed_methods, reason = "a connection's driver")]
        let connection = tokio::spawn(connection);
        let messages: Vec<String> = pixels.messages().iter().map(|message| format!("'{message}'")).collect();
        let query = format!(
            "COPY (SELECT recipient FROM hits WHERE message IN ({})) TO STDOUT (FORMAT binary)",
            messages.join(", ")
        );
        let mut rows = pin!(BinaryCopyOutStream::new(client.copy_out(&query).await?, &[Type::UUID]));
        let mut counts = Vec::new();
        let keyed = pixels.keyed(ledger.taken());
        while let Some(row) = rows.next().await {
            let recipient = RecipientId::of(row?.try_get(0)?);
            let number = keyed.get(&recipient).copied().or_else(|| pixels.number(recipient));
            let number = number.context("a row of our message has a recipient that is not ours")?;
            let number = usize::try_from(number)?;
            if counts.len() <= number {
                counts.resize(number + 1, 0_u8);
            }
            counts[number] = counts[number].saturating_add(1);
        }
        connection.abort();
        Ok(ledger.compare(&counts))
    })
}
