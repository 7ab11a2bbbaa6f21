//! Ids that cannot be confused: each is a UUID with a type of its own. Pure.
//!
//! Guarantees: one kind of id is never accepted for another; an id costs, hashes, sorts and reads as its UUID does. With the
//! feature `postgres` it is a `uuid`, parameter and column. Gives up: a bare UUID or bytes become
//! whichever kind the caller names. An id in a key stays a bare UUID, since its kind is not known yet.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! ids {
    ($($(#[$about:meta])* $name:ident)*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The nil UUID: there is none.
            pub const NONE: Self = Self(Uuid::nil());
            /// The last in their order.
            pub const MAX: Self = Self(Uuid::max());

            /// This UUID as an id; `const`, unlike `From`.
            #[must_use]
            pub const fn of(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// From a number, in big-endian order.
            #[must_use]
            pub const fn from_u128(number: u128) -> Self {
                Self(Uuid::from_u128(number))
            }

            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// A fresh one.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// As a bare UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Whether it is nil.
            pub const fn is_nil(self) -> bool {
                self.0.is_nil()
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        #[cfg(feature = "postgres")]
        impl postgres_types::ToSql for $name {
            fn to_sql(
                &self,
                kind: &postgres_types::Type,
                out: &mut bytes::BytesMut,
            ) -> Result<postgres_types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
                self.0.to_sql(kind, out)
            }

            postgres_types::accepts!(UUID);
            postgres_types::to_sql_checked!();
        }

        #[cfg(feature = "postgres")]
        impl postgres_types::FromSql<'_> for $name {
            fn from_sql(
                kind: &postgres_types::Type,
                raw: &[u8],
            ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                Uuid::from_sql(kind, raw).map(Self)
            }

            postgres_types::accepts!(UUID);
        }
    )* };
}

ids! {
    /// An image.
    ImageId
    /// A message, as its sender numbers it; `NONE` in a link that names none.
    MessageId
    /// A recipient, as the sender numbers them; `NONE` in a link that names none, and `NONE` is nobody.
    RecipientId
    /// A spool, or a mark of one: `spool_marks.spool_uuid`.
    SpoolId
    /// A node: its data directory's identity.
    NodeId
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn an_id_reads_hashes_and_sorts_as_its_uuid() {
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        let (id, uuid): (SpoolId, Uuid) = (text.parse().unwrap(), text.parse().unwrap());
        assert_eq!((id.to_string(), format!("{id:?}"), id.as_uuid()), (text.to_owned(), format!("{uuid:?}"), uuid));
        assert_eq!(text.to_uppercase().parse::<SpoolId>().unwrap(), id);
        assert!("0123".parse::<SpoolId>().is_err());
        assert_eq!([SpoolId::of(uuid), uuid.into(), SpoolId::from_bytes(*id.as_bytes())], [id; 3]);
        assert_eq!(id, SpoolId::from_u128(uuid.as_u128()));
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        assert_eq!(hasher.hash_one(id), hasher.hash_one(uuid));
        assert!(SpoolId::NONE < id && SpoolId::NONE.is_nil() && !id.is_nil());
        assert_eq!((SpoolId::default(), size_of::<SpoolId>()), (SpoolId::NONE, 16));
        assert_ne!(SpoolId::random(), SpoolId::random());
    }
}
