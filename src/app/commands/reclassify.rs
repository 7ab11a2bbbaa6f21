//! `pixeld reclassify`: judges stored hits again with the rules of this program.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use time::OffsetDateTime;

use crate::app::{database, which};
use crate::config::Config;
use crate::db::{self, Database};
use crate::rollup::change::{Changes, StoredHit, Verdict};
use pixeld_core::networks::Network;
use pixeld_core::opens::agent::Agent;
use pixeld_core::opens::classify::{Evidence, classify};

/// Maximum user agents that are remembered.
const AGENTS_MAX: usize = 100_000;

/// Pause between two chunks, so that others who wait for the lock (a rollup, an erasure) get it.
const CHUNK_PAUSE: Duration = Duration::from_millis(20);

/// Time after which all loaders know a send time that was just set: they look once a second, and load what they judged
/// before within another two.
const LOADERS_FOLLOW: Duration = Duration::from_secs(4);

/// `pixeld reclassify`: partition by partition, from the one that holds `since` on. Each chunk is a transaction of its
/// own, so that the command can be stopped at any time and run again.
///
/// # Errors
/// On a database error, or if it was stopped.
pub(crate) async fn reclassify(config: &Config, since: Option<OffsetDateTime>) -> anyhow::Result<()> {
    let db = which::find(config)?;
    let broken_off = "finished chunks are kept; a second run starts from the beginning";
    let (seen, changed) = database::with_database(&db, broken_off, judge_all(&db, since)).await?;
    println!("judged {seen} hits again; {changed} changed ({})", db.whereabouts());
    Ok(())
}

async fn judge_all(db: &Database, since: Option<OffsetDateTime>) -> anyhow::Result<(u64, u64)> {
    let loaded = {
        let session = db.connect("pixeld reclassify").await?;
        wait_for_loaders(&session.client).await?;
        crate::ingest::marks::loaded_since(&session.client, since).await?
    };
    let bar = ProgressBar::new(loaded.max(1)).with_style(ProgressStyle::with_template(
        "{msg}  {wide_bar}  {human_pos} of about {human_len} hits  {eta} left",
    )?);
    let mut changes = Changes::open(db).await?;
    let mut agents = Agents::default();
    let (mut seen, mut changed) = (0, 0);
    for day in changes.partitions(since).await? {
        bar.set_message(day.name.clone());
        let mut next = None;
        loop {
            let chunk = changes.reclassify_chunk(&day, next, |hit| agents.judge(hit)).await?;
            seen += chunk.seen;
            changed += chunk.changed;
            bar.set_length(loaded.max(seen));
            bar.set_position(seen);
            next = chunk.next;
            if next.is_none() {
                break;
            }
            tokio::time::sleep(CHUNK_PAUSE).await;
        }
    }
    bar.finish_and_clear();
    Ok((seen, changed))
}

/// Waits until all loaders know a send time that was just set: what they judge without it must be loaded before hits
/// are judged again.
async fn wait_for_loaders(client: &tokio_postgres::Client) -> anyhow::Result<()> {
    if let Some(age_s) = db::messages::since_sent_changed_s(client).await? {
        tokio::time::sleep(LOADERS_FOLLOW.saturating_sub(Duration::from_secs_f64(age_s.max(0.0)))).await;
    }
    Ok(())
}

/// User agents, parsed, by their ids.
#[derive(Default)]
struct Agents(HashMap<i64, Agent>);

impl Agents {
    /// The new verdict on a stored hit. A hit whose user agent was not kept keeps its verdict.
    fn judge(&mut self, hit: &StoredHit<'_>) -> Verdict {
        let Some(text) = hit.user_agent.filter(|_| hit.user_agent_id != 0) else { return hit.judged };
        if self.0.len() > AGENTS_MAX {
            self.0.clear();
        }
        let agent = *self.0.entry(hit.user_agent_id).or_insert_with(|| Agent::read(text));
        let rule = classify(&Evidence {
            agent,
            network: u16::try_from(hit.network).ok().and_then(Network::of_number),
            prefetch: hit.prefetch,
            since_sent_s: hit.sent_at.map(|sent_at| hit.at.unix_timestamp() - sent_at.unix_timestamp()),
        });
        Verdict { class: rule.class().number(), rule: rule.number(), client: agent.client.number() }
    }
}
