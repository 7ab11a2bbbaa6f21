//! Opens and counts, computed again from `hits` in plain SQL, and compared with the tables. Written from the
//! definitions alone, without a look at the program.

use pixeld_testkit::postgres::Postgres;

/// Views of what each table should contain. Only hits of published batches count. `SLOT` is when a time's slot begins
/// ([`slot`]).
const VIEWS: &str = "
    CREATE VIEW fact AS
    SELECT h.*, SLOT(h.at) AS hour,
        h.message <> '00000000-0000-0000-0000-000000000000' AS has_message,
        h.message <> '00000000-0000-0000-0000-000000000000' AND h.recipient <> '00000000-0000-0000-0000-000000000000'
            AS has_both
    FROM hits h
    JOIN batches b ON b.spool = h.spool AND h.seq >= b.first_seq AND h.seq < b.next_seq
    WHERE b.published IS NOT NULL;

    CREATE VIEW should_opens AS
    SELECT message, recipient,
        (array_agg(image ORDER BY at, spool, seq))[1] AS image,
        min(at) AS first_at,
        max(at) AS last_at,
        min(at) FILTER (WHERE class IN (1, 2)) AS confirmed_first_at,
        count(*) AS hits,
        count(*) FILTER (WHERE class IN (1, 2)) AS confirmed_hits,
        (array_agg(seq ORDER BY at, spool, seq))[1] AS first_seq,
        (array_agg(spool ORDER BY at, spool, seq))[1] AS first_spool,
        (array_agg(class ORDER BY array_position(ARRAY[1, 2, 0, 3, 4, 5, 6], class::int)))[1] AS best,
        (array_agg(class ORDER BY at, spool, seq))[1] AS first_class,
        (array_agg(class ORDER BY at, class) FILTER (WHERE class IN (1, 2)))[1] AS confirmed_first_class
    FROM fact WHERE has_both GROUP BY message, recipient;

    CREATE VIEW should_message_hours AS
    SELECT message, hour, class, sum(hits)::bigint AS hits, sum(firsts)::bigint AS first_opens,
        sum(confirmed)::bigint AS first_confirmed_opens
    FROM (
        SELECT message, hour, class, 1 AS hits, 0 AS firsts, 0 AS confirmed FROM fact WHERE has_message
        UNION ALL SELECT message, SLOT(first_at), first_class, 0, 1, 0 FROM should_opens
        UNION ALL SELECT message, SLOT(confirmed_first_at), confirmed_first_class, 0, 0, 1
            FROM should_opens WHERE confirmed_hits > 0
    ) AS parts GROUP BY message, hour, class;

    CREATE VIEW should_site_hours AS
    SELECT f.hour, f.class, f.hits, COALESCE(o.n, 0) AS first_opens, COALESCE(c.n, 0) AS first_confirmed_opens
    FROM (SELECT hour, class, count(*) AS hits FROM fact GROUP BY hour, class) AS f
    LEFT JOIN (SELECT SLOT(first_at) AS hour, first_class AS class, count(*) AS n
        FROM should_opens GROUP BY 1, 2) AS o ON o.hour = f.hour AND o.class = f.class
    LEFT JOIN (SELECT SLOT(confirmed_first_at) AS hour, confirmed_first_class AS class, count(*) AS n
        FROM should_opens WHERE confirmed_hits > 0 GROUP BY 1, 2) AS c ON c.hour = f.hour AND c.class = f.class;

    CREATE VIEW should_image_hours AS SELECT image, hour, count(*) AS hits FROM fact GROUP BY image, hour;

    CREATE VIEW should_message_facets AS
    SELECT message, 1::smallint AS facet, rule::int AS value, count(*) AS hits FROM fact WHERE has_message GROUP BY message, rule
    UNION ALL SELECT message, 2::smallint, client::int, count(*) FROM fact WHERE has_message GROUP BY message, client;

    CREATE VIEW should_messages AS
    SELECT m.id, f.first_at, f.last_at, COALESCE(o.opens, 0) AS opens, COALESCE(o.confirmed, 0) AS confirmed_opens,
        COALESCE(o.possible, 0) AS possible_opens, COALESCE(f.hits, 0) AS hits, COALESCE(f.machine, 0) AS machine_hits
    FROM (SELECT message AS id FROM fact WHERE has_message UNION SELECT id FROM messages) AS m
    LEFT JOIN (SELECT message, min(at) AS first_at, max(at) AS last_at, count(*) AS hits,
            count(*) FILTER (WHERE class IN (4, 5, 6)) AS machine FROM fact GROUP BY message) AS f ON f.message = m.id
    LEFT JOIN (SELECT message, count(*) AS opens, count(*) FILTER (WHERE confirmed_hits > 0) AS confirmed,
            count(*) FILTER (WHERE best IN (0, 3)) AS possible FROM should_opens GROUP BY message) AS o
        ON o.message = m.id;

    CREATE VIEW should_batches AS
    SELECT id, row_number() OVER (ORDER BY published) AS published,
        COALESCE(sum(next_seq - first_seq) OVER (ORDER BY published ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint
            AS events_before
    FROM batches WHERE published IS NOT NULL;

    CREATE VIEW should_rollup_state AS
    SELECT count(*) AS published, COALESCE(sum(next_seq - first_seq), 0)::bigint AS events
    FROM batches WHERE published IS NOT NULL;
";

const TABLES: [(&str, &str, &str); 8] = [
    (
        "opens",
        "message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, first_spool, best, \
         first_class, confirmed_first_class",
        "",
    ),
    ("message_hours", "message, hour, class, hits, first_opens, first_confirmed_opens", ""),
    ("site_hours", "hour, class, hits, first_opens, first_confirmed_opens", ""),
    ("image_hours", "image, hour, hits", ""),
    ("message_facets", "message, facet, value, hits", ""),
    ("messages", "id, first_at, last_at, opens, confirmed_opens, possible_opens, hits, machine_hits", ""),
    ("batches", "id, published, events_before", "WHERE published IS NOT NULL"),
    ("rollup_state", "published, events", ""),
];

/// Makes the views.
pub fn prepare(postgres: &Postgres) {
    prepare_from(postgres, "hits");
}

/// Makes the views over the hits in that table. For a schema that counts by hour, all slots are hours.
pub fn prepare_from(postgres: &Postgres, table: &str) {
    let has_quarters = postgres.number("SELECT count(*) FROM pg_class WHERE relname = 'counting'").unwrap() > 0.0;
    let views = ["h.at", "first_at", "confirmed_first_at"]
        .iter()
        .fold(VIEWS.to_owned(), |views, at| views.replace(&format!("SLOT({at})"), &slot(at, has_quarters)));
    postgres.query(&views.replace("FROM hits h", &format!("FROM {table} h"))).unwrap();
}

/// When the slot of a time begins: its quarter of an hour, or its hour before there were any.
fn slot(at: &str, has_quarters: bool) -> String {
    let hour = format!("date_trunc('hour', {at}, 'UTC')");
    if has_quarters {
        format!(
            "(CASE WHEN {at} < (SELECT quarters_from FROM counting) THEN {hour} \
              ELSE {hour} + floor(extract(minute FROM {at} AT TIME ZONE 'UTC') / 15) * interval '15 minutes' END)"
        )
    } else {
        hour
    }
}

/// Removes the views, to make them for another schema.
pub fn drop_views(postgres: &Postgres) {
    let views = "SELECT string_agg(relname, ', ') FROM pg_class WHERE relkind = 'v' AND (relname = 'fact' OR relname ~ '^should_') \
                 AND relnamespace = 'public'::regnamespace";
    let views = postgres.query(views).unwrap().remove(0);
    postgres.query(&format!("DROP VIEW {views}")).unwrap();
}

/// Fills the empty tables with what they should contain, like a program of an earlier schema; batches are published
/// already.
pub fn fill(postgres: &Postgres) {
    for (table, columns, _) in TABLES.iter().filter(|(table, ..)| !["batches", "rollup_state"].contains(table)) {
        postgres.query(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM should_{table}")).unwrap();
    }
}

/// The differences between the tables and the hits, in words; empty if they match.
pub fn differences(postgres: &Postgres) -> Vec<String> {
    let both_ways = |(table, columns, filter): &(&str, &str, &str)| {
        format!(
            "SELECT '{table} has ' || t::text FROM (SELECT {columns} FROM {table} {filter} EXCEPT ALL \
               SELECT {columns} FROM should_{table}) AS t \
             UNION ALL SELECT '{table} lacks ' || t::text FROM (SELECT {columns} FROM should_{table} EXCEPT ALL \
               SELECT {columns} FROM {table} {filter}) AS t"
        )
    };
    let all: Vec<String> = TABLES.iter().map(both_ways).collect();
    postgres.query(&format!("SET jit = off; {}", all.join(" UNION ALL "))).unwrap()
}

/// Asserts that the tables match the hits.
pub fn assert_same(postgres: &Postgres, when: &str) {
    let differences = differences(postgres);
    assert!(
        differences.is_empty(),
        "{when}: {} differences\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}
