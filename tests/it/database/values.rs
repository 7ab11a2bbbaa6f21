//! Our own types as PostgreSQL's values, both ways, compared with the server's own output.

use pixeld::parts::db::Database;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, MessageId, NodeId, RecipientId, SpoolId};
use pixeld_testkit::postgres::Postgres;
use tokio_postgres::Client;

/// Runs with a connection to a new PostgreSQL.
fn with_client(test: impl AsyncFnOnce(&Client)) {
    let postgres = Postgres::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = Database::external(&postgres.url()).unwrap().connect("test").await.unwrap();
        test(&session.client).await;
    });
}

/// Texts and their meaning: before 1970, the epochs of both, after 2038, the last finite time that we count, and the
/// infinities.
const TIMES: [(&str, Micros); 11] = [
    ("-infinity", Micros::MIN),
    ("4714-11-24 00:00:00+00 BC", Micros(-210_866_803_200_000_000)),
    ("1969-12-31 23:59:59.999999+00", Micros(-1)),
    ("1970-01-01 00:00:00+00", Micros(0)),
    ("1999-12-31 23:59:59.999999+00", Micros(946_684_799_999_999)),
    ("2000-01-01 00:00:00+00", Micros(946_684_800_000_000)),
    ("2026-05-28 14:00:00.000007+02", Micros(1_779_969_600_000_007)),
    ("2038-01-19 03:14:08+00", Micros(2_147_483_648_000_000)),
    ("9999-12-31 23:59:59.999999+00", Micros(253_402_300_799_999_999)),
    ("294247-01-10 04:00:54.775806+00", Micros(i64::MAX - 1)),
    ("infinity", Micros::MAX),
];

#[test]
fn a_time_is_the_same_moment_on_both_sides() {
    with_client(async |client| {
        for (text, at) in TIMES {
            let read = "SELECT $1::text::timestamptz, $1::text::timestamptz = $2";
            let row = client.query_one(read, &[&text, &at]).await.unwrap();
            assert_eq!((row.get::<_, Micros>(0), row.get(1)), (at, true), "{text}");
        }
        let (texts, times): (Vec<&str>, Vec<Option<Micros>>) =
            TIMES.map(|(text, at)| (text, Some(at))).into_iter().unzip();
        let count = "SELECT count(*), array_append(array_agg(k.at ORDER BY k.at), NULL) FROM unnest($1::text[], $2::timestamptz[]) AS k (told, at) \
                     WHERE k.told::timestamptz = k.at";
        let row = client.query_one(count, &[&texts, &times]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), TIMES.len() as i64);
        assert_eq!(row.get::<_, Vec<Option<Micros>>>(1), [times, vec![None]].concat());
    });
}

#[test]
fn later_times_than_ours_read_as_infinity_and_earlier_ones_than_the_servers_are_refused_by_it() {
    with_client(async |client| {
        for text in ["294247-01-10 04:00:54.775807+00", "294276-12-31 23:59:59.999999+00"] {
            let row = client.query_one("SELECT $1::text::timestamptz", &[&text]).await.unwrap();
            assert_eq!(row.get::<_, Micros>(0), Micros::MAX, "{text}");
        }
        // None of these is read as an infinity there.
        for at in [Micros(-210_866_803_200_000_001), Micros(i64::MIN + 946_684_800_000_001), Micros(i64::MIN + 1)] {
            let error = client.query_one("SELECT $1::timestamptz", &[&at]).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "22008", "{error}");
        }
        let row = client.query_one("SELECT 1::bigint, now()::timestamp", &[]).await.unwrap();
        assert!(row.try_get::<_, Micros>(0).is_err() && row.try_get::<_, Micros>(1).is_err());
    });
}

#[test]
fn an_id_is_the_same_uuid_on_both_sides() {
    with_client(async |client| {
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        let id: SpoolId = text.parse().unwrap();
        let select =
            "SELECT $1::uuid::text, $2::text::uuid, ($3::uuid[])[2], array_agg(n) FROM unnest($3::uuid[]) AS n";
        let row = client.query_one(select, &[&id, &text, &[SpoolId::NONE, id].as_slice()]).await.unwrap();
        assert_eq!((row.get(0), row.get::<_, SpoolId>(1), row.get::<_, SpoolId>(2)), (text, id, id));
        assert_eq!(row.get::<_, Vec<SpoolId>>(3), [SpoolId::NONE, id]);
        let select = "SELECT $1::uuid = $2::uuid AND $2 = $3::uuid AND $3 = $4::uuid, $4, $3, $2, $1";
        let ids: (ImageId, MessageId, RecipientId, NodeId) =
            (text.parse().unwrap(), text.parse().unwrap(), text.parse().unwrap(), text.parse().unwrap());
        let row = client.query_one(select, &[&ids.0, &ids.1, &ids.2, &ids.3]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        assert_eq!((row.get(4), row.get(3), row.get(2), row.get(1)), ids);
        let row = client.query_one("SELECT $1::text, NULL::uuid", &[&text]).await.unwrap();
        assert!(row.try_get::<_, SpoolId>(0).is_err() && row.try_get::<_, SpoolId>(1).is_err());
        assert_eq!(row.get::<_, Option<SpoolId>>(1), None);
    });
}
