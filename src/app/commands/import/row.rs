//! Turns a row of the Django app's log into a hit. Pure.
//!
//! An absent message or recipient is the nil UUID. An id that is not a UUID becomes the one that the same key has in a
//! keyed link, so that both mean the same recipient. The app's client address is used if it is valid: the app believed
//! the leftmost X-Forwarded-For entry, so it may be anything.

use std::collections::HashMap;
use std::net::IpAddr;

use uuid::Uuid;

use super::source::LogRow;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::ids::ImageId;
use pixeld_core::link::key::{Key, KeyError, Namespace};
use pixeld_core::networks::{Network, Networks};
use pixeld_core::privacy::IpPrivacy;
use pixeld_edge::client_address;

/// What is needed to read rows.
pub(super) struct Reading {
    /// The ids of pictures by their numbers.
    pub pictures: HashMap<i64, ImageId>,
    /// The namespace that turns keys into ids.
    pub namespace: Namespace,
    /// The providers' networks.
    pub networks: Networks,
    /// How much of an address is kept.
    pub ip_privacy: IpPrivacy,
    /// The latest valid time of a row.
    pub latest_at: Micros,
}

/// Why a row cannot be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Its time is missing or impossible.
    #[error("its time is not between 1970 and a year from now")]
    Time,
    /// It names no picture of the app's.
    #[error("its image is not in images_picture")]
    Picture,
    /// Its texts are not UTF-8.
    #[error("its text has bytes that the database cannot return as UTF-8 (another encoding)")]
    Unreadable,
    /// Its message is not a valid id.
    #[error("its message_id is not an id: {0}")]
    Message(KeyError),
    /// Its recipient is not a valid id.
    #[error("its user_id is not an id: {0}")]
    User(KeyError),
}

impl Reading {
    /// Reads a row.
    pub(super) fn hit<'a>(&self, row: &'a LogRow) -> Result<Hit<'a>, Refusal> {
        if row.is_unreadable {
            return Err(Refusal::Unreadable);
        }
        let at = row.at.filter(|at| (Micros(0)..=self.latest_at).contains(at)).ok_or(Refusal::Time)?;
        let image = row.picture.and_then(|number| self.pictures.get(&number)).copied().ok_or(Refusal::Picture)?;
        let address = address(row);
        Ok(Hit {
            at,
            sent_at_s: 0,
            image,
            message: self.id(&row.message).map_err(Refusal::Message)?,
            recipient: self.id(&row.user).map_err(Refusal::User)?,
            // From the full address, before it is cut.
            network: address.and_then(|address| self.networks.of(address)).map_or(0, Network::number),
            prefetch: false,
            address: address.and_then(|address| client_address::kept(address, self.ip_privacy)),
            keys: None,
            user_agent: &row.user_agent,
            is_erased: false,
        })
    }

    fn id<Id: From<Uuid>>(&self, text: &str) -> Result<Id, KeyError> {
        match Key::typed(text) {
            Ok(key) => Ok(self.namespace.id_of(&key)),
            Err(KeyError::Empty) => Ok(Uuid::nil().into()),
            Err(error) => Err(error),
        }
    }
}

/// The address of a row; `None` if it is invalid.
pub(super) fn address(row: &LogRow) -> Option<IpAddr> {
    client_address::parse(row.ip.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::ids::{MessageId, RecipientId};

    const IMAGE: ImageId = ImageId::from_u128(7);

    fn reading(ip_privacy: IpPrivacy) -> Reading {
        Reading {
            pictures: HashMap::from([(3, IMAGE)]),
            namespace: Namespace(Uuid::from_u128(9)),
            networks: Networks::new(&[("17.0.0.0/8".parse().unwrap(), Network::Apple)]),
            ip_privacy,
            latest_at: Micros(1000),
        }
    }

    fn row() -> LogRow {
        LogRow { id: 1, at: Some(Micros(5)), picture: Some(3), ..LogRow::default() }
    }

    #[test]
    fn a_row_with_everything_absent_is_a_hit_of_nobody() {
        let row = row();
        let hit = reading(IpPrivacy::Full).hit(&row).unwrap();
        assert_eq!(
            (hit.image, hit.message, hit.recipient, hit.address),
            (IMAGE, MessageId::NONE, RecipientId::NONE, None)
        );
        assert_eq!((hit.at, hit.network, hit.user_agent), (Micros(5), 0, ""));
    }

    #[test]
    fn ids_are_read_in_every_form_and_others_are_keys() {
        let id = "0123456789ABCDEF0123456789abcdef";
        let row = LogRow { message: id.to_owned(), user: "4711".to_owned(), ..row() };
        let reading = reading(IpPrivacy::Full);
        let hit = reading.hit(&row).unwrap();
        assert_eq!(hit.message, id.parse().unwrap());
        assert_eq!(hit.recipient, reading.namespace.id_of(&Key::typed("4711").unwrap()));
    }

    #[test]
    fn an_address_is_taken_where_it_is_one_and_cut_after_its_network_is_known() {
        for (ip, kept, network) in [
            ("unknown", None, 0),
            ("", None, 0),
            ("evil, 192.0.2.1", None, 0),
            ("17.1.2.3", Some("17.1.2.0"), Network::Apple.number()),
            (" ::ffff:17.1.2.3 ", Some("17.1.2.0"), Network::Apple.number()),
            ("[2001:db8:1:2::3]:443", Some("2001:db8:1::"), 0),
        ] {
            let row = LogRow { ip: ip.to_owned(), ..row() };
            let hit = reading(IpPrivacy::Truncated).hit(&row).unwrap();
            assert_eq!((hit.address, hit.network), (kept.map(|text| text.parse().unwrap()), network), "{ip}");
        }
    }

    #[test]
    fn what_cannot_be_a_hit_is_refused_with_the_reason() {
        let reading = reading(IpPrivacy::None);
        let long = "x".repeat(129);
        for (row, refusal) in [
            (LogRow { at: None, ..row() }, Refusal::Time),
            (LogRow { at: Some(Micros(-1)), ..row() }, Refusal::Time),
            (LogRow { at: Some(Micros(1001)), ..row() }, Refusal::Time),
            (LogRow { picture: None, ..row() }, Refusal::Picture),
            (LogRow { picture: Some(4), ..row() }, Refusal::Picture),
            (LogRow { message: long.clone(), ..row() }, Refusal::Message(KeyError::Length)),
            (LogRow { is_unreadable: true, ..row() }, Refusal::Unreadable),
            (LogRow { user: "{{id}}".to_owned(), ..row() }, Refusal::User(KeyError::Unmerged)),
        ] {
            assert_eq!(reading.hit(&row), Err(refusal), "{row:?}");
        }
    }
}
