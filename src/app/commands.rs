//! All commands except `serve`. Each prints its result to standard output and its errors to standard error.

mod erase;
mod export;
mod import;
mod links;
mod messages;
mod networks;
mod opt_out;
mod reclassify;
mod users;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::options::{eraser_options, housekeeper_options, loader_options};
use super::recording::bytes_of;
use super::{DataDir, database, health, which};
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::{self, Database, DbError, migrate};
use crate::erasure::disk::Eraser;
use crate::images::{self, upload};
use crate::ingest::housekeeper::Housekeeper;
use crate::ingest::loader::Loader;
use crate::ingest::source::MarkName;
use crate::opt_outs::follow as opt_outs;
use pixeld_core::drain;
use pixeld_core::ids::{ImageId, NodeId, SpoolId};
use pixeld_core::link::key::{KEY_BYTES_MAX, Key};
use pixeld_core::metrics::{DropReason, Metrics};
use pixeld_core::text;
use pixeld_edge::images::ImageCache;
use pixeld_spool::disk::RealDisk;
use pixeld_spool::orphans::Orphans;
use pixeld_spool::{SpoolRoom, recovery};

pub(super) use erase::erase;
pub(super) use export::export;
pub(super) use import::import_django;
pub(super) use links::{link, namespace};
pub(super) use messages::{message_list, message_set};
pub(super) use networks::{networks_status, networks_update};
pub(super) use opt_out::opt_out;
pub(super) use reclassify::reclassify;
pub(super) use users::{user_add, user_list, user_password, user_remove};

/// Maximum bytes of a recipient on standard input: blanks, and a key that is percent-encoded twice.
const TYPED_BYTES_MAX: u64 = 16 * KEY_BYTES_MAX as u64;

/// How long `spool drain` may take.
const SPOOL_DRAIN_WAIT: Duration = Duration::from_secs(3600);

/// `pixeld migrate`.
pub(super) async fn migrate(config: &Config, new_installation: bool) -> anyhow::Result<()> {
    let db = which::whereabouts(config)?;
    let migrating = async {
        if new_installation {
            migrate::accept(&db).await?
        } else {
            migrate::run(&db).await?
        }
        which::named(&db, &db.connect("pixeld migrate").await?.client).await
    };
    let named = database::with_lease(&db, "finished migrations are kept", migrating).await?;
    println!("the database is up to date ({named})");
    Ok(())
}

/// `pixeld database-url`.
///
/// # Errors
/// If the settings name no possible database.
pub(super) fn database_url(config: &Config) -> anyhow::Result<()> {
    let db = which::find(config)?;
    if let Some(note) = db.note_for_people() {
        eprintln!("{note}");
    }
    println!("{}", db.url_for_people());
    Ok(())
}

/// The recipient in an argument or, if that is `-`, on standard input. If it is read as a different text than was
/// typed, the user sees a note on standard error; a receipt names nobody.
fn typed_recipient(argument: &str) -> anyhow::Result<String> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        std::io::stdin().lock().take(TYPED_BYTES_MAX).read_to_string(&mut text).context("cannot read the recipient")?;
        anyhow::ensure!((text.len() as u64) < TYPED_BYTES_MAX, "the recipient on standard input is too long");
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    if let Some(read) = Key::reading(&text) {
        eprintln!("the recipient is read as {read:?}");
    }
    Ok(text)
}

/// `pixeld image add`.
///
/// # Errors
/// Why the file was refused, or a database error.
pub(super) async fn image_add(
    config: &Config,
    file: &Path,
    id: Option<ImageId>,
    title: Option<&str>,
) -> anyhow::Result<()> {
    let bytes = read_bounded(file)?;
    let inspected = upload::inspect(&bytes).with_context(|| format!("{} is refused", file.display()))?;
    let db = which::find(config)?;
    let name = file.file_stem().map(|stem| text::visible(&stem.to_string_lossy()).into_owned());
    let adding = async {
        let client = db.pool().get().await.map_err(DbError::from)?;
        let added = upload::add(&client, COMMAND_LINE, &bytes, id, title.or(name.as_deref())).await;
        let added = added.with_context(|| format!("{} could not be added", file.display()))?;
        Ok((added, which::named(&db, &client).await?))
    };
    let (added, named) = database::with_database(&db, database::NOT_KNOWN, adding).await?;
    println!("{added}");
    eprintln!("added to {named}");
    for warning in upload::warnings(inspected.media_type, &bytes) {
        eprintln!("{warning}");
    }
    Ok(())
}

/// Reads one byte more than is allowed, so that a huge file is refused without reading it.
fn read_bounded(file: &Path) -> anyhow::Result<Vec<u8>> {
    let opened = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut bytes = Vec::new();
    let limit = upload::BYTES_MAX as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}

/// `pixeld image list`.
pub(super) async fn image_list(config: &Config) -> anyhow::Result<()> {
    let db = which::find(config)?;
    let listing = async { Ok(db::images::list(&db).await?) };
    let images = database::with_database(&db, database::NOTHING_CHANGED, listing).await?;
    let mut out = std::io::stdout().lock();
    for image in images {
        let deleted = if image.deleted_at.is_some() { "  (deleted)" } else { "" };
        let (id, kind, width, height) = (image.id, &image.media_type, image.width, image.height);
        writeln!(
            out,
            "{id}  {kind:<10}  {width:>4} x {height:<4}  {:>8} B  {}{deleted}",
            image.length,
            text::visible(&image.title)
        )?;
    }
    Ok(())
}

/// `pixeld spool status`.
///
/// # Errors
/// On a disk error. If the database cannot be reached, only its column is missing.
pub(super) async fn spool_status(config: &Config) -> anyhow::Result<()> {
    let db = which::find(config)?;
    let data = DataDir::look(&config.storage.data_dir);
    let spools = match recovery::list_spools(&data.spools()) {
        Ok(spools) => spools,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", data.spools().display())),
    };
    let marks = match marks(&db).await {
        Ok(marks) => Some(marks),
        Err(error) => {
            eprintln!("cannot ask the database how many of these hits are loaded: {}", db::describe(&error));
            None
        }
    };
    println!("{:<36}  {:>8}  {:>12}  {:>12}  {:>12}", "spool", "segments", "bytes", "hits", "waiting");
    for spool in spools {
        let name = MarkName::of(spool.uuid, &data.spools().join(spool.uuid.to_string()));
        let mark = marks
            .as_ref()
            .map(|marks| marks.iter().find(|(uuid, _)| *uuid == name.uuid).map_or(name.first_seq, |(_, seq)| *seq));
        let waiting = mark.map_or("?".to_owned(), |mark| spool.next_seq.saturating_sub(mark).to_string());
        println!(
            "{:<36}  {:>8}  {:>12}  {:>12}  {waiting:>12}",
            spool.uuid, spool.segments, spool.bytes, spool.next_seq
        );
    }
    Ok(())
}

async fn marks(db: &Database) -> anyhow::Result<Vec<(SpoolId, u64)>> {
    let reading = async {
        let session = db.connect("pixeld spool status").await?;
        let rows = session.client.query("SELECT spool_uuid, next_seq FROM spool_marks", &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect())
    };
    database::with_lease(db, database::NOTHING_CHANGED, reading).await
}

/// `pixeld spool drain`: loads what the spools hold, then ends. With `retire`, the node holds no hits after it.
///
/// # Errors
/// If hits are left, or another pixeld has the data directory.
pub(super) fn spool_drain(config: &Config, retire: bool) -> anyhow::Result<()> {
    // Before the lock, which would create a directory.
    let db = which::find(config)?;
    let data = DataDir::lock(&config.storage.data_dir)?;
    let spools = data.spools();
    let recovered = recovery::recover(&spools)?;
    // `--retire` would remove them.
    if let Some(error) = recovered.left_alone.into_iter().next() {
        return Err(error).context("a spool cannot be read");
    }
    let recovered = recovered.spools;
    let metrics = Metrics::new(0);
    let orphans = Arc::new(Orphans::find(recovery::quarantine(&spools)));
    let room = Arc::new(SpoolRoom::new(bytes_of(&recovered) + orphans.bytes(), config.storage.spool_bytes_max));
    orphans.share(&room);
    // The images that this directory knows; nothing is served from it.
    let (images, _) = ImageCache::new(0);
    images::sync::recall(&images, &data.known_images());
    let options = loader_options(config, &spools);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (left, named) = runtime.block_on(async {
        let eraser = eraser_options(&data, 0)?;
        let (node, disk) = (eraser.node, Arc::new(RealDisk));
        let eraser =
            Eraser::new(eraser, db.clone(), Arc::clone(&metrics), disk, recovered.clone(), Arc::clone(&orphans));
        let erasing = (node, eraser);
        // The database may lack what this directory remembers, if it was restored from a backup and the node never
        // returns.
        let (keep, all_spools) = (housekeeper_options(config, &db, &spools), recovered.clone());
        let loader = Loader::new(options, db.clone(), Arc::clone(&metrics), recovered, None, orphans)
            .with_images(images)
            .with_opt_outs(opt_outs::recall(&data.opt_outs()));
        let housekeeper = Housekeeper::start(keep, all_spools, room, Arc::clone(&metrics), |keep| {
            std::thread::Builder::new().name("house".into()).spawn(keep)
        })?;
        let draining = async {
            let (trigger, drain) = drain::drain();
            trigger.ask(SPOOL_DRAIN_WAIT);
            let left = loader.run(async {}, drain.clone()).await;
            housekeeper.finish();
            if left == 0 {
                let aside = metrics.orphans.get();
                anyhow::ensure!(
                    !retire || aside == 0,
                    "{aside} hits are set aside because the database does not have their images; the log names the images. Add them \
                     again under their ids, or remove {}/*.orphans to give these hits up",
                    recovery::quarantine(&data.spools()).display()
                );
                end_node(&data, &db, erasing, retire).await?;
            }
            Ok((left, which::named(&db, &db.connect("pixeld spool drain").await?.client).await?))
        };
        let broken_off = "hits that are not loaded wait in the spool, and some erasures may not be carried out; run it again";
        database::with_database(&db, broken_off, draining).await
    })?;
    let dropped: u64 = DropReason::ALL.iter().map(|&reason| metrics.dropped(reason)).sum();
    println!("loaded {} hits, dropped {dropped}, left {left} ({named})", metrics.loaded.get());
    let aside = metrics.orphans.get();
    if aside > 0 {
        println!("{aside} hits are set aside until the database has their images again");
    }
    anyhow::ensure!(left == 0, "{left} hits are left in the spool");
    Ok(())
}

/// Runs after all is loaded: restores erasures and carries them out on the kept hits; with `retire`, removes those
/// hits, too, and takes the node off the list.
async fn end_node(data: &DataDir, db: &Database, (node, eraser): (NodeId, Eraser), retire: bool) -> anyhow::Result<()> {
    let (_trigger, drain) = drain::drain();
    eraser.carry_out_all(&drain).await?;
    if !retire {
        return Ok(());
    }
    for folder in [data.spools(), recovery::quarantine(&data.spools())] {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    let session = db.connect("pixeld retire").await?;
    db::within(
        db::QUERY_TIMEOUT,
        "retiring this node",
        crate::erasure::nodes::retire(&session.client, COMMAND_LINE, node),
    )
    .await?;
    println!("this node is retired: no hit is left in its data directory");
    Ok(())
}

/// `pixeld healthcheck`: asks a running `serve` whether it serves pixels.
///
/// # Errors
/// If it does not answer 200 in time.
pub(super) async fn healthcheck(config: &Config) -> anyhow::Result<()> {
    health::ask(config.listen.public).await?;
    println!("ok");
    Ok(())
}
