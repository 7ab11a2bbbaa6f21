//! Passwords: which ones are allowed, and their hash (Argon2id, 19 MiB, two passes, one lane).
//!
//! Guarantees: hashing never runs on a thread that serves, and at most [`AT_ONCE_MAX`] run at once, so that many
//! sign-ins take 38 MiB and not gigabytes. An unknown name takes as long as a known one. Gives up: a sign-in that
//! cannot be served within [`WAIT_MAX`] is asked to try again.

use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use super::gate::Gate;
use pixeld_core::text;

/// Minimum characters of a password. Length is what counts; the kinds of characters are up to the user.
pub(crate) const CHARACTERS_MIN: usize = 12;

/// Maximum bytes of a password.
pub(crate) const BYTES_MAX: usize = 1024;

/// Hashes that are computed at once; each takes 19 MiB.
pub(crate) const AT_ONCE_MAX: usize = 2;

/// How long a sign-in waits for its turn.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The hash of no real password, for unknown names.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cGl4ZWxkJ3MgZGVjb3kgIQ$LU6uXIBDXTCkLPUKv5xHfSXvIXZRGzmrAxRWzrEh4nk";

/// What is wrong with a password; `None` if it is allowed.
pub(crate) fn wrong_password(password: &str, name: &str) -> Option<&'static str> {
    if password.chars().count() < CHARACTERS_MIN {
        return Some("use at least 12 characters; three or four unrelated words make a good password");
    }
    if password.len() > BYTES_MAX {
        return Some("use at most 1024 bytes");
    }
    if text::fold(password).contains(&text::fold(name)) && name.chars().count() > 3 {
        return Some("the password must not contain the user's name");
    }
    None
}

/// Hashes a password on this thread.
///
/// # Errors
/// If the system has no randomness or memory left.
pub(crate) fn hash(password: &str) -> anyhow::Result<String> {
    let hash = argon2()?.hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| anyhow::anyhow!("a password cannot be hashed: {error}"))
}

fn argon2() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|error| anyhow::anyhow!("Argon2 refuses its parameters: {error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether this is the password that was hashed. Takes the same time if there is no hash.
fn matches(password: &str, hash: Option<&str>) -> bool {
    let Ok(hash) = PasswordHash::new(hash.unwrap_or(DECOY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// Why a password was not checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too many sign-ins at once.
    #[error("too many sign-ins at once")]
    Busy,
    /// The hashing failed.
    #[error("{0:#}")]
    Hash(anyhow::Error),
}

/// Where passwords are hashed while pixeld serves.
#[derive(Debug, Clone)]
pub(crate) struct Passwords(Gate);

impl Default for Passwords {
    fn default() -> Self {
        Passwords(Gate::new(AT_ONCE_MAX))
    }
}

impl Passwords {
    /// Whether `password` is the one that was hashed. Without a `hash` it is false, after the same time.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] if its turn does not come in time.
    pub(crate) async fn is_right(&self, password: String, hash: Option<String>) -> Result<bool, PasswordError> {
        self.turn(move || Ok(matches(&password, hash.as_deref()) && hash.is_some())).await
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] if its turn does not come in time; [`PasswordError::Hash`] if the hashing fails.
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.turn(move || hash(&password)).await
    }

    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = tokio::time::timeout(WAIT_MAX, self.0.wait()).await;
        let Ok(Some(place)) = place else { return Err(PasswordError::Busy) };
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work: the client may be gone, but the memory is still in use.
            let _place = place;
            work()
        });
        match done.await {
            Ok(done) => done.map_err(PasswordError::Hash),
            Err(error) => Err(PasswordError::Hash(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::gate::Place;

    #[test]
    fn a_hash_says_how_it_was_made_and_the_decoy_was_made_alike() {
        let hash = hash("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(DECOY.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(DECOY.len(), hash.len());
        PasswordHash::new(DECOY).unwrap();
        assert!(matches("correct horse battery", Some(&hash)));
        assert!(!matches("correct horse batterz", Some(&hash)));
        assert!(!matches("correct horse battery", None) && !matches("", Some("no hash")));
    }

    #[test]
    fn short_long_and_telling_passwords_are_refused() {
        for (password, name, part) in [
            ("elf letters", "ann", "12 characters"),
            ("", "ann", "12 characters"),
            (&"x".repeat(1025), "ann", "1024 bytes"),
            ("MaryPoppins-2026", "marypoppins", "user's name"),
        ] {
            assert!(wrong_password(password, name).unwrap().contains(part), "{password}");
        }
        for password in ["twelve chars", "zwölf Zeichen", &"ä".repeat(512)] {
            assert_eq!(wrong_password(password, "ann"), None, "{password}");
        }
    }

    #[tokio::test]
    async fn the_decoy_never_lets_anybody_in_and_two_are_hashed_at_once() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(passwords.is_right("correct horse battery".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.is_right("correct horse battery".to_owned(), None).await.unwrap());
        let all: Vec<Place> = std::iter::from_fn(|| passwords.0.enter()).collect();
        assert_eq!(all.len(), AT_ONCE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_would_be_too_long_is_refused() {
        let passwords = Passwords::default();
        let _all: Vec<Place> = std::iter::from_fn(|| passwords.0.enter()).collect();
        let error = passwords.is_right(String::new(), None).await.unwrap_err();
        assert!(matches!(error, PasswordError::Busy));
    }
}
