//! `pixeld link` and `pixeld namespace`.

use anyhow::Context;

use crate::app::{DataDir, database, namespace as kept};
use crate::cli::LinkArgs;
use crate::config::Config;
use crate::db::{self, Database};
use crate::link::key::{Key, Namespace};
use crate::link::make::{self, Names};

/// `pixeld link`: the URL, then the tag.
///
/// # Errors
/// Where there is no such image, or what is given cannot be in a link.
pub async fn link(config: &Config, args: &LinkArgs) -> anyhow::Result<()> {
    let db = Database::new(config)?;
    let lease = database::open(&db).await?;
    let asked = async {
        let session = db.connect("pixeld link").await?;
        let image = db::images::find(&session.client, args.image).await?;
        anyhow::Ok((image, db::installation::namespace(&session.client).await?))
    };
    let asked = asked.await;
    lease.release().await?;
    let (image, namespace) = asked?;
    let image = image.with_context(|| format!("there is no image {}; `pixeld image list` shows them", args.image))?;
    anyhow::ensure!(image.deleted_at.is_none(), "the image {} is deleted", args.image);
    let names = Names {
        image: args.image,
        message: args.message.as_deref(),
        recipient: args.recipient.as_deref(),
        sent_at_s: args.sent_at.unwrap_or(0),
        extension: make::extension(&image.media_type),
    };
    let url = format!("{}{}", config.base_url, make::path(&names, namespace, &config.signing_keys)?);
    println!("{url}\n{}", make::img_tag(&url, image.width, image.height));
    Ok(())
}

/// `pixeld namespace`: the namespace, or the ids of keys.
///
/// # Errors
/// Where a key can be none, or neither the disk nor the database knows the namespace.
pub async fn namespace(config: &Config, keys: &[String]) -> anyhow::Result<()> {
    let keys: Vec<Key<'_>> = keys
        .iter()
        .map(|key| Key::typed(key).with_context(|| format!("{key:?} cannot be a key")))
        .collect::<anyhow::Result<_>>()?;
    let namespace = known_namespace(config).await?;
    if keys.is_empty() {
        println!("{}", namespace.0);
    }
    for key in &keys {
        println!("{}", namespace.id_of(key));
    }
    Ok(())
}

/// The namespace as the database has it; as this node keeps it only where the database cannot be asked, and said so.
async fn known_namespace(config: &Config) -> anyhow::Result<Namespace> {
    let db = Database::new(config)?;
    let asked = async {
        let lease = database::open(&db).await?;
        let asked = async {
            let session = db.connect("pixeld namespace").await?;
            anyhow::Ok(db::installation::namespace(&session.client).await?)
        };
        let asked = asked.await;
        lease.release().await?;
        asked
    };
    match asked.await {
        Ok(namespace) => Ok(namespace),
        Err(error) => match kept::read(&DataDir::look(&config.data_dir).namespace(), &db) {
            Some(namespace) => {
                eprintln!("the database cannot be asked ({error:#}); this is what this node keeps");
                Ok(namespace)
            }
            None => Err(error),
        },
    }
}
