//! What all nodes of this installation share and nobody ever types.

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::link::key::Namespace;
use crate::privacy::PrivacyKey;

/// The key of throttle fingerprints.
///
/// # Errors
/// As PostgreSQL says.
pub async fn throttle_key(client: &Client) -> Result<[u8; 16], Error> {
    secret(client, "throttle_key").await
}

/// What keys are made ids under.
///
/// # Errors
/// As PostgreSQL says.
pub async fn namespace(client: &Client) -> Result<Namespace, Error> {
    Ok(Namespace(Uuid::from_bytes(secret(client, "key_namespace").await?)))
}

/// What recipients are hashed under on lists that name nobody.
///
/// # Errors
/// As PostgreSQL says.
pub async fn privacy_key(client: &Client) -> Result<PrivacyKey, Error> {
    Ok(PrivacyKey(secret(client, "privacy_key").await?))
}

/// What opt-out links are signed with where there are no signing keys.
///
/// # Errors
/// As PostgreSQL says.
pub async fn opt_out_key(client: &Client) -> Result<[u8; 32], Error> {
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
