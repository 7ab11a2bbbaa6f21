//! Secrets that all nodes of this installation share and that nobody ever types.

use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::digest;
use pixeld_core::ids::RecipientId;
use pixeld_core::link::key::{Key, KeyError, Namespace};
use pixeld_core::privacy::PrivacyKey;

/// Identifies an installation: a digest of a secret that every database has from its first migration on, and that never
/// changes. A dump that is restored elsewhere is the same installation. Receipts and errors show its short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstallationId(pub [u8; 16]);

impl InstallationId {
    fn of(secret: &[u8]) -> InstallationId {
        InstallationId(digest::prefix(&[b"pixeld installation\0", secret]))
    }

    /// The whole id, in 32 hexadecimal digits.
    pub fn digits(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// Reads the result of [`InstallationId::digits`].
    pub fn parse(digits: &str) -> Option<InstallationId> {
        let digits = Some(digits).filter(|digits| digits.len() == 32)?;
        Some(InstallationId(u128::from_str_radix(digits, 16).ok()?.to_be_bytes()))
    }
}

/// The short name, like `7c1f-09ab`.
impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}-{c:02x}{d:02x}")
    }
}

/// The installation of this database.
pub(crate) async fn id(client: &Client) -> Result<InstallationId, Error> {
    let row = client.query_one("SELECT secret FROM installation WHERE name = 'throttle_key'", &[]).await?;
    Ok(InstallationId::of(row.get(0)))
}

/// The same; `None` if the database has no tables of pixeld.
pub(crate) async fn id_if_any(client: &Client) -> Result<Option<InstallationId>, Error> {
    let select = "SELECT secret FROM installation WHERE name = 'throttle_key'";
    match client.query_opt(select, &[]).await {
        Ok(row) => Ok(row.map(|row| InstallationId::of(row.get(0)))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a typed text is not a recipient. Never repeats the text: it may name somebody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecipientError {
    /// Neither a UUID nor a key.
    #[error("this is not a valid recipient: {0}")]
    NoKey(#[from] KeyError),
    /// The nil UUID.
    #[error("this is not a valid recipient: the nil UUID stands for none")]
    Nil,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The id of the recipient that a person typed: a UUID, or a key of this installation's links.
pub(crate) async fn recipient_typed(client: &Client, typed: &str) -> Result<RecipientId, RecipientError> {
    let recipient: RecipientId = match Key::typed(typed)? {
        Key::Id(id) => id.into(),
        key => within(QUERY_TIMEOUT, "reading the namespace", namespace(client)).await?.id_of(&key),
    };
    if recipient.is_nil() { Err(RecipientError::Nil) } else { Ok(recipient) }
}

/// The key of throttle fingerprints.
pub(crate) async fn throttle_key(client: &Client) -> Result<[u8; 16], Error> {
    secret(client, "throttle_key").await
}

/// The namespace that turns keys into ids.
pub(crate) async fn namespace(client: &Client) -> Result<Namespace, Error> {
    Ok(Namespace(Uuid::from_bytes(secret(client, "key_namespace").await?)))
}

/// The key of recipients' hashes, for lists that name nobody.
pub(crate) async fn privacy_key(client: &Client) -> Result<PrivacyKey, Error> {
    Ok(PrivacyKey(secret(client, "privacy_key").await?))
}

/// The key that signs opt-out links if there are no signing keys.
pub(crate) async fn opt_out_key(client: &Client) -> Result<[u8; 32], Error> {
    secret(client, "opt_out_key").await
}

/// The first bytes of a secret.
async fn secret<const N: usize>(client: &Client, name: &str) -> Result<[u8; N], Error> {
    let row = client.query_one("SELECT secret FROM installation WHERE name = $1", &[&name]).await?;
    let secret: &[u8] = row.get(0);
    let mut bytes = [0; N];
    bytes.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_name_and_another_has_another() {
        // Existing receipts have it.
        assert_eq!(InstallationId::of(&[7; 32]).to_string(), "722b-d12d");
        let id = InstallationId::of(&[7; 32]);
        assert_eq!(InstallationId::parse(&id.digits()), Some(id));
        assert_ne!(InstallationId::of(&[8; 32]), InstallationId::of(&[7; 32]));
    }
}
