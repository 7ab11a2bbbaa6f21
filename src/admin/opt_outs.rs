//! What the opt-out page needs: the keys of its links, and its rate limits. Other pages use the key of the hashes, too.

use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::Admin;
use super::refusal::Refusal;
use super::throttle::OptOutThrottle;
use crate::db::{QUERY_TIMEOUT, installation, within};
use pixeld_core::link::opt_out::OptOutKeys;
use pixeld_core::privacy::PrivacyKey;

/// What the page needs.
#[derive(Default)]
pub(super) struct OptOuts {
    /// They never change in an installation, so they are read once.
    keys: OnceCell<Keys>,
    pub(super) throttle: OptOutThrottle,
}

/// The keys.
pub(super) struct Keys {
    /// Of the links.
    pub(super) links: OptOutKeys,
    /// Of the hashes in the list.
    pub(super) privacy: PrivacyKey,
}

impl OptOuts {
    /// The keys, read from the database the first time.
    pub(super) async fn keys(&self, admin: &Admin) -> Result<&Keys, Refusal> {
        match self.keys.get() {
            Some(keys) => Ok(keys),
            None => self.keys_with(admin, &*admin.client().await?).await,
        }
    }

    /// The same, for callers that hold a connection: waiting for a second one could deadlock.
    pub(super) async fn keys_with(&self, admin: &Admin, client: &Client) -> Result<&Keys, Refusal> {
        let ask = async || {
            let own =
                within(QUERY_TIMEOUT, "reading the key of opt-out links", installation::opt_out_key(client)).await?;
            let privacy = within(QUERY_TIMEOUT, "reading the key of hashes", installation::privacy_key(client)).await?;
            Ok(Keys { links: OptOutKeys::new(admin.options.signing.keys.clone(), own), privacy })
        };
        self.keys.get_or_try_init(ask).await
    }
}
