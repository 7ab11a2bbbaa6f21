//! `pixeld link` and `pixeld namespace`.

mod table;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;
use uuid::Uuid;

use crate::app::{DataDir, database, namespace as kept, which};
use crate::cli::LinkArgs;
use crate::config::Config;
use crate::db::images::ImageRow;
use crate::db::{self, installation};
use crate::lists::header::Consents;
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::make::{self, Names};
use pixeld_core::link::opt_out::{self, OptOutKeys};

/// What is needed to make links.
struct Maker<'a> {
    config: &'a Config,
    args: &'a LinkArgs,
    image: ImageRow,
    namespace: Namespace,
    opt_out: OptOutKeys,
}

/// `pixeld link`: the URL, then the tag, then the link for the footer if requested; or all of these in a table.
///
/// # Errors
/// If there is no such image, or if a value cannot be in a link.
pub(crate) async fn link(config: &Config, args: &LinkArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.opt_out || args.recipient.is_some() || args.csv.is_some(),
        "--opt-out needs a recipient: add --recipient or --csv"
    );
    let db = which::find(config)?;
    check_keys(config)?;
    if !config.listen.is_base_url_set {
        eprintln!(
            "these links begin with {} because no setting names your address: set PIXELD_BASE_URL, or PIXELD_DATA_DIR to the data \
             directory of your pixeld",
            config.listen.base_url
        );
    }
    let asking = async {
        let session = db.connect("pixeld link").await?;
        let client = &session.client;
        let image = db::images::find(client, args.image).await?;
        Ok((image, installation::namespace(client).await?, installation::opt_out_key(client).await?))
    };
    let (image, namespace, opt_out_key) = database::with_database(&db, database::NOTHING_CHANGED, asking).await?;
    let image =
        image.with_context(|| format!("there is no image {}; `pixeld image list` shows all images", args.image))?;
    anyhow::ensure!(image.deleted_at.is_none(), "the image {} is deleted", args.image);
    let opt_out = OptOutKeys::new(config.signing.keys.clone(), opt_out_key);
    let maker = Maker { config, args, image, namespace, opt_out };
    if let Some(csv) = &args.csv {
        return maker.table(csv);
    }
    let [url, tag] = maker.make(args.message.as_deref(), args.recipient.as_deref())?;
    println!("{url}\n{tag}");
    if let Some(recipient) = args.recipient.as_deref().filter(|_| args.opt_out) {
        println!("{}", maker.footer(recipient)?);
    }
    Ok(())
}

/// Refuses links that the pixeld of this data directory would not record. Prints a note if it could sign these links, but
/// they are not signed here.
fn check_keys(config: &Config) -> anyhow::Result<()> {
    let Some(served) = &config.served else { return Ok(()) };
    let (data_dir, ours) = (config.storage.data_dir.display(), config.signing.keys.digests());
    if let Some(newest) = ours.first() {
        if served.signing_keys.contains(newest) {
            return Ok(());
        }
        let id = newest.split(':').next().unwrap_or_default();
        return Err(which::refusal(format!(
            "the pixeld of {data_dir} does not know the key {id} in PIXELD_SIGNING_KEYS, so it would refuse these links as \
             forged. Give both the same keys, and restart `pixeld serve` if its keys change"
        )));
    }
    let why = served.missing.get("PIXELD_SIGNING_KEYS").map_or("are not set here", String::as_str);
    if served.signing_keys.is_empty() {
        return Ok(());
    }
    let to_do = format!(
        "To sign, set PIXELD_SIGNING_KEYS here as well, or for all commands PIXELD_SIGNING_KEYS or PIXELD_SIGNING_KEYS_FILE in {} (mode 0600)",
        config.settings_file().display()
    );
    if config.signing.is_required {
        return Err(which::refusal(format!(
            "the pixeld of {data_dir} records only signed links, but links cannot be signed here: its PIXELD_SIGNING_KEYS {why}. {to_do}"
        )));
    }
    eprintln!("these links are not signed: the PIXELD_SIGNING_KEYS of the pixeld of {data_dir} {why}. {to_do}");
    Ok(())
}

impl Maker<'_> {
    /// The URL and the tag.
    fn make(&self, message: Option<&str>, recipient: Option<&str>) -> anyhow::Result<[String; 2]> {
        let names = Names {
            image: self.args.image,
            message,
            recipient,
            sent_at_s: self.args.sent_at.unwrap_or(0),
            extension: make::extension(&self.image.media_type),
        };
        let path = make::path(&names, self.namespace, &self.config.signing.keys)?;
        let url = format!("{}{path}", self.config.listen.base_url);
        let tag = make::img_tag(&url, self.image.width, self.image.height);
        Ok([url, tag])
    }

    /// The link with which a recipient opts out.
    fn footer(&self, recipient: &str) -> anyhow::Result<String> {
        let key = Key::typed(recipient).with_context(|| format!("{recipient:?} cannot be a recipient"))?;
        anyhow::ensure!(key != Key::Id(Uuid::nil()), "the nil UUID means \"none\", who cannot opt out");
        let token = self.opt_out.sign(self.namespace.id_of(&key));
        Ok(format!("{}{}{token}", self.config.listen.base_url, opt_out::PATH))
    }

    fn table(&self, csv: &Path) -> anyhow::Result<()> {
        let mut input: Box<dyn Read> = if csv == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(csv).with_context(|| format!("cannot open {}", csv.display()))?)
        };
        let options = table::Options {
            column: &self.args.list.column,
            consents: match self.args.list.all_consent {
                true => Consents::All,
                false => Consents::Column(&self.args.list.consent_column),
            },
            is_sure: self.args.list.sure,
            added: &["link", "tag", "opt_out"][..if self.args.opt_out { 3 } else { 2 }],
        };
        let (mut table, summary) = table::fill(&mut input, &options, |row| {
            let message = row.message.or(self.args.message.as_deref());
            let [url, tag] = self.make(message, row.has_consented.then_some(row.recipient))?;
            let footer = self.args.opt_out.then(|| self.footer(row.recipient)).transpose()?;
            Ok([Some(url), Some(tag), footer].into_iter().flatten().collect())
        })?;
        io::copy(&mut table, &mut io::stdout().lock())?;
        eprintln!("{summary}");
        Ok(())
    }
}

/// `pixeld namespace`: the namespace, or the ids of keys.
///
/// # Errors
/// If a key is invalid, or neither the disk nor the database knows the namespace.
pub(crate) async fn namespace(config: &Config, keys: &[String]) -> anyhow::Result<()> {
    let keys: Vec<Key<'_>> = keys
        .iter()
        .map(|key| Key::typed(key).with_context(|| format!("{key:?} cannot be a key")))
        .collect::<anyhow::Result<_>>()?;
    let namespace = known_namespace(config).await?;
    if keys.is_empty() {
        println!("{}", namespace.0);
    }
    for key in &keys {
        println!("{}", namespace.id_of::<Uuid>(key));
    }
    Ok(())
}

/// The namespace in the database; the copy on disk only if the database cannot be reached, with a note.
async fn known_namespace(config: &Config) -> anyhow::Result<Namespace> {
    let db = which::find(config)?;
    let asking = async {
        let session = db.connect("pixeld namespace").await?;
        Ok(db::installation::namespace(&session.client).await?)
    };
    match database::with_database(&db, database::NOTHING_CHANGED, asking).await {
        Ok(namespace) => Ok(namespace),
        Err(error) => match kept::read(&DataDir::look(&config.storage.data_dir).namespace(), &db) {
            Some(namespace) => {
                eprintln!(
                    "cannot ask the database ({}); this is the namespace that this node keeps",
                    db::describe(&error)
                );
                Ok(namespace)
            }
            None => Err(error),
        },
    }
}
