//! `pixeld serve --sample`: a first image, and what to try with it. `make run` uses it.

use tokio::sync::watch;

use super::{database, program};
use crate::config::Config;
use crate::db::audit::COMMAND_LINE;
use crate::db::{self, Database};
use crate::images::upload;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// A small envelope, 32 × 32, that is visible in a browser.
const SAMPLE: &[u8] = include_bytes!("sample.png");

/// The sample image's id: fixed, so that `docs/sample-email.html` shows it.
const SAMPLE_ID: ImageId = ImageId::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_0001);

/// Adds the sample image if there is none, and prints what to try.
pub(super) async fn show(db: Database, config: Config, ready: watch::Receiver<bool>) {
    database::until(ready).await;
    match image(&db).await {
        Ok(image) => print!("{}", words(&config, &db, image)),
        Err(error) => tracing::warn!(error = crate::db::describe(&error), "the sample image could not be added"),
    }
}

async fn image(db: &Database) -> anyhow::Result<ImageId> {
    let images = db::images::list(db).await?;
    match images.iter().find(|image| image.deleted_at.is_none()) {
        Some(image) => Ok(image.id),
        None => {
            // The fixed id may exist and be deleted; use another one then.
            let is_taken = images.iter().any(|image| image.id == SAMPLE_ID);
            let id = (!is_taken).then_some(SAMPLE_ID);
            let client = db.pool().get().await?;
            Ok(upload::add(&client, COMMAND_LINE, SAMPLE, id, Some("Sample")).await?)
        }
    }
}

fn words(config: &Config, db: &Database, image: ImageId) -> String {
    let (message, recipient) = (MessageId::random(), RecipientId::random());
    let url = format!("{}/image/{image}_{message}_{recipient}.png", config.listen.base_url);
    let row = format!("SELECT at, class, ip, user_agent FROM hits_readable WHERE recipient = '{recipient}'");
    // The user's own URL may contain a password, and this output often goes to a log.
    let database = if db.is_embedded() {
        format!("'{}'", db.url_for_people())
    } else {
        format!("\"$({} database-url)\"", program::typed(config))
    };
    let program = program::typed(config);
    let (admin, add_user) = (&config.listen.admin_base_url, format!("{program} user add ann"));
    let link = format!("{program} link --image {image} --message may-news --recipient 4711");
    format!(
        "\npixeld is running. In a second terminal, in any directory, add a user for the admin page (choose a password when asked):\n\n  \
         {add_user}\n\nThen open {admin} in your browser and sign in. Open this pixel of a made-up message and recipient in \
         another tab, as a mail program would:\n\n  {url}\n\nand reload the page: within two seconds it shows a confirmed open.\n\n\
         The same from a shell (curl is counted as a machine), and the row in PostgreSQL:\n\n  \
         curl -o /tmp/pixel.png {url}\n  psql {database} -c \"{row}\"\n\n\
         A link and tag for your own email:\n\n  {link}\n\n\
         Numbers: {admin}/metrics. Ctrl-C drains and stops everything that was started.\n\n"
    )
}
