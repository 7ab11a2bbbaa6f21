//! A hit for tests of code that transports hits.

use super::Hit;
use crate::clock::micros::Micros;
use crate::ids::{ImageId, MessageId, RecipientId};

/// A hit with this user agent; its time, recipient and prefetch come from `n`.
pub fn carrying(n: u64, user_agent: &str) -> Hit<'_> {
    Hit {
        at: Micros(n as i64),
        sent_at_s: 0,
        image: ImageId::from_u128(1),
        message: MessageId::from_u128(2),
        recipient: RecipientId::from_u128(u128::from(n)),
        network: 0,
        prefetch: n % 2 == 1,
        address: None,
        keys: None,
        is_erased: false,
        user_agent,
    }
}
