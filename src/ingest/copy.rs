//! Rows of `hits` in PostgreSQL's binary COPY format. Pure: values in, bytes out.
//!
//! tokio-postgres has its own writer, which flushes every 4 KiB and panics on a wrong column count; this one fills one
//! buffer that is sent in large pieces.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use pixeld_core::clock::micros::{Micros, POSTGRES_EPOCH};
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// The statement whose input these bytes are.
pub const COPY_HITS: &str = "COPY hits (at, seq, user_agent, sent_at, message, recipient, image, spool, class, rule, \
                             network, prefetch, ip, client) FROM STDIN (FORMAT binary)";

const COLUMNS: i16 = 14;

/// One row of `hits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// When it was answered.
    pub at: Micros,
    /// The hit's number in its spool.
    pub seq: i64,
    /// The id of its user agent.
    pub user_agent: i64,
    /// Seconds since 1970; 0 is NULL.
    pub sent_at_s: u32,
    /// The message; nil if absent.
    pub message: MessageId,
    /// The recipient; nil if absent.
    pub recipient: RecipientId,
    /// The image.
    pub image: ImageId,
    /// The spool's number in `spool_marks`.
    pub spool: i32,
    /// What fetched it.
    pub class: i16,
    /// The reason for the class.
    pub rule: i16,
    /// The provider network of its full address.
    pub network: i16,
    /// Whether a request header marked it as a prefetch, so no person has looked yet.
    pub prefetch: bool,
    /// The address, as far as it may be kept.
    pub address: Option<IpAddr>,
    /// The mail client or proxy that its user agent names.
    pub client: i16,
}

/// Appends the beginning of the stream.
pub fn begin(out: &mut BytesMut) {
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    out.put_i32(0);
    out.put_i32(0);
}

/// Appends the end of the stream.
pub fn end(out: &mut BytesMut) {
    out.put_i16(-1);
}

/// Appends one row.
pub fn put(out: &mut BytesMut, row: &Row) {
    out.reserve(256);
    out.put_i16(COLUMNS);
    put_i64(out, row.at.us_after(POSTGRES_EPOCH));
    put_i64(out, row.seq);
    put_i64(out, row.user_agent);
    match row.sent_at_s {
        0 => out.put_i32(-1),
        seconds => put_i64(out, Micros::of_seconds(i64::from(seconds)).us_after(POSTGRES_EPOCH)),
    }
    for id in [row.message.as_bytes(), row.recipient.as_bytes(), row.image.as_bytes()] {
        out.put_i32(16);
        out.put_slice(id);
    }
    out.put_i32(4);
    out.put_i32(row.spool);
    for small in [row.class, row.rule, row.network] {
        out.put_i32(2);
        out.put_i16(small);
    }
    out.put_i32(1);
    out.put_u8(u8::from(row.prefetch));
    // inet: family (2 is IPv4, 3 is IPv6), prefix bits, "is a cidr", address length, address.
    match row.address {
        None => out.put_i32(-1),
        Some(IpAddr::V4(address)) => {
            out.put_i32(8);
            out.put_slice(&[2, 32, 0, 4]);
            out.put_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.put_i32(20);
            out.put_slice(&[3, 128, 0, 16]);
            out.put_slice(&address.octets());
        }
    }
    out.put_i32(2);
    out.put_i16(row.client);
}

fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_row_has_each_column_with_its_length() {
        let mut out = BytesMut::new();
        let row = Row {
            at: Micros(POSTGRES_EPOCH.0 + 1),
            seq: 2,
            user_agent: 3,
            sent_at_s: 0,
            message: MessageId::NONE,
            recipient: RecipientId::MAX,
            image: ImageId::from_u128(7),
            spool: 4,
            class: 5,
            rule: 6,
            network: 7,
            prefetch: true,
            address: Some(IpAddr::from([192, 0, 2, 1])),
            client: 9,
        };
        put(&mut out, &row);
        let mut rest = &out[2..];
        let mut lengths = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            lengths.push(length);
            rest = &behind[length.max(0) as usize..];
        }
        assert_eq!(&out[..2], &[0, 14]);
        assert_eq!(lengths, [8, 8, 8, -1, 16, 16, 16, 4, 2, 2, 2, 1, 8, 2]);
        assert_eq!(&out[2..14], &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
