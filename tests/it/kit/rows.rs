//! Rows as pixeld leaves them, made in PostgreSQL itself, so thousands take a moment. What differs between rows is SQL
//! over `n`, the row's number from 0.

use std::collections::BTreeMap;

use pixeld::parts::db::{Database, partitions};
use pixeld_testkit::postgres::Postgres;
use time::Date;
use time::macros::format_description;

/// Rows of one table.
pub struct Rows {
    table: &'static str,
    count: u64,
    /// The value of each column, as SQL.
    columns: BTreeMap<&'static str, String>,
}

impl Rows {
    fn of(table: &'static str, count: u64, defaults: &[(&'static str, &str)]) -> Rows {
        let columns = defaults.iter().map(|(column, sql)| (*column, (*sql).to_owned())).collect();
        Rows { table, count, columns }
    }

    /// Messages without a hit.
    pub fn messages(count: u64) -> Rows {
        Rows::of("messages", count, &[("id", "gen_random_uuid()")])
    }

    /// Opens of one hit each, made by a bot just now; each with its own message and recipient.
    pub fn opens(count: u64) -> Rows {
        let defaults = [
            ("message", "gen_random_uuid()"),
            ("recipient", "gen_random_uuid()"),
            ("image", "gen_random_uuid()"),
            ("first_at", "now()"),
            ("last_at", "now()"),
            ("hits", "1"),
            ("confirmed_hits", "0"),
            ("first_seq", "n"),
            ("first_spool", "1"),
            ("best", "6"),
            ("first_class", "6"),
        ];
        Rows::of("opens", count, &defaults)
    }

    /// The same with this SQL over `n` for a column.
    pub fn with(mut self, column: &'static str, sql: impl Into<String>) -> Rows {
        self.columns.insert(column, sql.into());
        self
    }

    /// The same with this id for a column.
    pub fn id(self, column: &'static str, id: impl std::fmt::Display) -> Rows {
        self.with(column, format!("'{id}'::uuid"))
    }

    fn insert(&self) -> String {
        let names: Vec<&str> = self.columns.keys().copied().collect();
        let values: Vec<&str> = self.columns.values().map(String::as_str).collect();
        let (table, names, values) = (self.table, names.join(", "), values.join(", "));
        format!("INSERT INTO {table} ({names}) SELECT {values} FROM generate_series(0, {} - 1) AS n", self.count)
    }

    pub fn add(&self, postgres: &Postgres) {
        postgres.query(&self.insert()).unwrap();
    }
}

/// A batch of hits, as a loader leaves it.
pub struct Hits {
    rows: Rows,
    spool: u32,
    first_seq: u64,
}

impl Hits {
    /// Hits of a spool that does not exist, each with its own recipient, of a person and without a message. Their time
    /// is SQL over `n`, too, and must not depend on when it runs.
    pub fn new(count: u64, at: impl Into<String>) -> Hits {
        let defaults = [
            ("user_agent", "0"),
            ("message", "'00000000-0000-0000-0000-000000000000'::uuid"),
            ("recipient", "gen_random_uuid()"),
            ("image", "'00000000-0000-0000-0000-000000000001'::uuid"),
            ("class", "1"),
            ("rule", "1"),
            ("network", "0"),
            ("prefetch", "false"),
            ("client", "0"),
        ];
        let rows = Rows::of("hits", count, &defaults).with("at", at);
        Hits { rows, spool: 0, first_seq: 0 }.of_spool(9000, 0)
    }

    /// The same from this number of this spool on.
    pub fn of_spool(self, spool: u32, first_seq: u64) -> Hits {
        let rows = self.rows.with("spool", spool.to_string()).with("seq", format!("{first_seq} + n"));
        Hits { rows, spool, first_seq }
    }

    /// The same with this SQL over `n` for a column.
    pub fn with(mut self, column: &'static str, sql: impl Into<String>) -> Hits {
        self.rows = self.rows.with(column, sql);
        self
    }

    /// The same with this id for a column.
    pub fn id(mut self, column: &'static str, id: impl std::fmt::Display) -> Hits {
        self.rows = self.rows.id(column, id);
        self
    }

    /// Makes partitions for their days, and inserts them with their batch.
    pub fn load(&self, postgres: &Postgres) {
        self.make_partitions(postgres);
        let Hits { rows, spool, first_seq } = self;
        let next_seq = first_seq + rows.count;
        let insert = format!(
            "WITH added AS ({} RETURNING at) \
             INSERT INTO batches (spool, first_seq, next_seq, loaded, min_at, max_at) \
             SELECT {spool}, {first_seq}, {next_seq}, count(*), min(at), max(at) FROM added",
            rows.insert()
        );
        postgres.query(&insert).unwrap();
    }

    fn make_partitions(&self, postgres: &Postgres) {
        let days = format!(
            "SELECT DISTINCT (({}) AT TIME ZONE 'UTC')::date::text FROM generate_series(0, {} - 1) AS n",
            self.rows.columns["at"], self.rows.count
        );
        let days = postgres.query(&days).unwrap();
        let written = format_description!("[year]-[month]-[day]");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let session = Database::external(&postgres.url()).unwrap().connect("test").await.unwrap();
            for day in days {
                partitions::make(&session.client, Date::parse(&day, written).unwrap()).await.unwrap();
            }
        });
    }
}
