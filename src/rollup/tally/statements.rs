//! The statements of a tally: its temporary tables, and what is written from them.

use std::sync::LazyLock;

use crate::opens::class;

/// What a tally's connection starts with. `work_mem` holds a chunk of hits twice over; `temp_buffers` the temporary tables. A
/// chunk is planned in a millisecond and run in some hundred, so compiling its queries first never pays.
pub(super) const SETTINGS: &str = "SET temp_buffers = '48MB'; SET work_mem = '64MB'; SET jit = off; \
     SET max_parallel_workers_per_gather = 0";

/// - `work_hits`: the hits at hand. `n` is the batch's or the hit's own number, `tid` the row in its partition; both and what
///   only judging needs are empty where nobody asks.
/// - `verdicts`: new judgements of hits by `n`.
/// - `touched`: opens that must be computed again, as they are. `whole`: no hit beyond those at hand is to be looked for.
/// - `pair_hits`: the hits that those are computed from.
/// - `pairs`: opens as they were (`was_…`, empty for a new one) and as they are to be (empty for one that goes).
/// - `edges`: messages that may have lost their first or last hit, and the first and last slot that still has hits.
/// - `delta_hits`, `delta_hours`: what is added to the counts, or taken with a negative number.
pub(super) const TABLES: &str = "\
     CREATE TEMP TABLE IF NOT EXISTS work_hits ( \
       at timestamptz NOT NULL, seq bigint NOT NULL, message uuid NOT NULL, recipient uuid NOT NULL, image uuid NOT NULL, \
       spool int NOT NULL, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL, n int, tid tid, \
       network smallint, prefetch bool, user_agent bigint, sent_at timestamptz) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS verdicts ( \
       n int NOT NULL, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL, tid tid NOT NULL \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS touched ( \
       message uuid NOT NULL, recipient uuid NOT NULL, was_first_at timestamptz NOT NULL, was_last_at timestamptz NOT NULL, \
       was_confirmed_first_at timestamptz, tid tid NOT NULL, was_first_class smallint NOT NULL, \
       was_confirmed_first_class smallint, was_best smallint NOT NULL, whole bool NOT NULL) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS pair_hits ( \
       at timestamptz NOT NULL, seq bigint NOT NULL, message uuid NOT NULL, recipient uuid NOT NULL, image uuid NOT NULL, \
       spool int NOT NULL, class smallint NOT NULL) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS pairs ( \
       message uuid NOT NULL, recipient uuid NOT NULL, image uuid, first_at timestamptz, last_at timestamptz, \
       confirmed_first_at timestamptz, hits bigint, confirmed_hits bigint, first_seq bigint, \
       was_first_at timestamptz, was_confirmed_first_at timestamptz, first_spool int, tid tid, \
       best smallint, first_class smallint, confirmed_first_class smallint, \
       was_best smallint, was_first_class smallint, was_confirmed_first_class smallint) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS edges ( \
       message uuid NOT NULL, first_at timestamptz, last_at timestamptz, first_hour timestamptz, last_hour timestamptz \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS delta_hits ( \
       message uuid NOT NULL, image uuid NOT NULL, hour timestamptz NOT NULL, hits bigint NOT NULL, \
       first_at timestamptz, last_at timestamptz, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS delta_hours ( \
       message uuid NOT NULL, hour timestamptz NOT NULL, hits bigint NOT NULL, first_opens bigint NOT NULL, \
       first_confirmed_opens bigint NOT NULL, class smallint NOT NULL) ON COMMIT DELETE ROWS";

/// Empties all of them within a transaction.
pub(super) const CLEAR: &str = "DELETE FROM work_hits; DELETE FROM verdicts; DELETE FROM touched; DELETE FROM pair_hits; \
     DELETE FROM pairs; DELETE FROM edges; DELETE FROM delta_hits; DELETE FROM delta_hours";

/// The nil UUID in SQL.
macro_rules! nil {
    () => {
        "'00000000-0000-0000-0000-000000000000'::uuid"
    };
}

/// When the slot of a time begins. The query in it is run once a statement; `date_trunc` with a zone's name would cost four times as
/// much for each row.
macro_rules! slot {
    ($at:literal) => {
        concat!(
            "date_bin(CASE WHEN ",
            $at,
            " >= (SELECT quarters_from FROM counting) THEN interval '15 minutes' ELSE interval '1 hour' END, ",
            $at,
            ", '2000-01-01 00:00:00+00')"
        )
    };
}

/// What an open is, computed from the hits of the table `$from` that have a message and a recipient.
///
/// The hits are numbered in their order once (they nearly stand in it), so that each pair's earliest is one more hash aggregate
/// and not a sort by four columns. Its classes are still names: [`class::numbered`].
macro_rules! opens_of {
    ($from:literal) => {
        concat!(
            "WITH h AS MATERIALIZED ( \
               SELECT row_number() OVER (ORDER BY at, spool, seq) AS n, message, recipient, at, seq, image, spool, class \
               FROM ",
            $from,
            " WHERE message <> ",
            $crate::rollup::tally::nil!(),
            " AND recipient <> ",
            $crate::rollup::tally::nil!(),
            "), a AS ( \
               SELECT message, recipient, min(n) AS n, max(at) AS last_at, count(*) AS hits, \
                 count(*) FILTER (WHERE class IN ({confirmed})) AS confirmed_hits, \
                 min(at) FILTER (WHERE class = {human}) AS human_at, min(at) FILTER (WHERE class = {proxied}) AS proxied_at, \
                 min(COALESCE(class_rank(class), {rank of unknown}::smallint)) AS rank \
               FROM h GROUP BY message, recipient) \
             SELECT a.message, a.recipient, h.image, h.at AS first_at, a.last_at, \
               LEAST(human_at, proxied_at) AS confirmed_first_at, hits, confirmed_hits, h.seq AS first_seq, \
               h.spool AS first_spool, rank, h.class AS first_class, \
               (CASE WHEN human_at <= COALESCE(proxied_at, 'infinity') THEN {human} \
                 WHEN confirmed_hits > 0 THEN {proxied} END)::smallint AS confirmed_first_class \
             FROM a JOIN h ON h.n = a.n ORDER BY a.message, a.recipient"
        )
    };
}
pub(in crate::rollup) use {nil, opens_of, slot};

/// Writes `pairs` into opens, then both tables into the counts. Joins are nested loops throughout: without statistics of the
/// temporary tables the planner would read all of opens now and then.
pub(super) static APPLY: LazyLock<String> = LazyLock::new(|| class::numbered(APPLY_NAMED));

const APPLY_NAMED: &str = concat!(
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; ",
    "INSERT INTO opens (message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, \
       first_spool, best, first_class, confirmed_first_class) \
     SELECT message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, first_spool, \
       best, first_class, confirmed_first_class FROM pairs WHERE tid IS NULL; ",
    "UPDATE opens o SET image = p.image, first_at = p.first_at, last_at = p.last_at, \
       confirmed_first_at = p.confirmed_first_at, hits = p.hits, confirmed_hits = p.confirmed_hits, \
       first_seq = p.first_seq, first_spool = p.first_spool, best = p.best, first_class = p.first_class, \
       confirmed_first_class = p.confirmed_first_class \
     FROM pairs p WHERE o.ctid = p.tid AND p.first_at IS NOT NULL; ",
    "DELETE FROM opens o USING pairs p WHERE o.ctid = p.tid AND p.first_at IS NULL; ",
    "INSERT INTO delta_hours (message, hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT message, hour, class, sum(hits), sum(firsts), sum(confirmed) FROM ( \
       SELECT message, hour, class, hits, 0 AS firsts, 0 AS confirmed FROM delta_hits \
       UNION ALL SELECT message, ",
    slot!("first_at"),
    ", first_class, 0, 1, 0 FROM pairs WHERE first_at IS NOT NULL \
         AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class) \
       UNION ALL SELECT message, ",
    slot!("was_first_at"),
    ", was_first_class, 0, -1, 0 FROM pairs WHERE was_first_at IS NOT NULL \
         AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class) \
       UNION ALL SELECT message, ",
    slot!("confirmed_first_at"),
    ", confirmed_first_class, 0, 0, 1 FROM pairs WHERE confirmed_first_at IS NOT NULL \
         AND (confirmed_first_at, confirmed_first_class) \
             IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class) \
       UNION ALL SELECT message, ",
    slot!("was_confirmed_first_at"),
    ", was_confirmed_first_class, 0, 0, -1 FROM pairs WHERE was_confirmed_first_at IS NOT NULL \
         AND (confirmed_first_at, confirmed_first_class) \
             IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class) \
     ) AS d GROUP BY message, hour, class HAVING sum(hits) <> 0 OR sum(firsts) <> 0 OR sum(confirmed) <> 0; ",
    "INSERT INTO message_hours AS t (message, hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT message, hour, class, hits, first_opens, first_confirmed_opens FROM delta_hours WHERE message <> ",
    nil!(),
    " ORDER BY message, hour, class \
     ON CONFLICT (message, hour, class) DO UPDATE SET hits = t.hits + excluded.hits, \
       first_opens = t.first_opens + excluded.first_opens, \
       first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens; ",
    "DELETE FROM message_hours t USING delta_hours d \
     WHERE (d.hits < 0 OR d.first_opens < 0 OR d.first_confirmed_opens < 0) \
       AND t.message = d.message AND t.hour = d.hour AND t.class = d.class \
       AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0; ",
    "INSERT INTO site_hours AS t (hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT hour, class, sum(hits), sum(first_opens), sum(first_confirmed_opens) FROM delta_hours GROUP BY hour, class \
     HAVING sum(hits) <> 0 OR sum(first_opens) <> 0 OR sum(first_confirmed_opens) <> 0 ORDER BY hour, class \
     ON CONFLICT (hour, class) DO UPDATE SET hits = t.hits + excluded.hits, \
       first_opens = t.first_opens + excluded.first_opens, \
       first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens; ",
    "DELETE FROM site_hours t USING (SELECT DISTINCT hour, class FROM delta_hours \
       WHERE hits < 0 OR first_opens < 0 OR first_confirmed_opens < 0) AS d \
     WHERE t.hour = d.hour AND t.class = d.class AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0; ",
    "INSERT INTO image_hours AS t (image, hour, hits) \
     SELECT image, hour, sum(hits) FROM delta_hits GROUP BY image, hour HAVING sum(hits) <> 0 ORDER BY image, hour \
     ON CONFLICT (image, hour) DO UPDATE SET hits = t.hits + excluded.hits; ",
    "DELETE FROM image_hours t USING (SELECT DISTINCT image, hour FROM delta_hits WHERE hits < 0) AS d \
     WHERE t.image = d.image AND t.hour = d.hour AND t.hits = 0; ",
    "INSERT INTO message_facets AS t (message, facet, value, hits) \
     SELECT message, facet, value, sum(hits) FROM ( \
       SELECT message, 1 AS facet, rule AS value, hits FROM delta_hits \
       UNION ALL SELECT message, 2, client, hits FROM delta_hits) AS d \
     WHERE message <> ",
    nil!(),
    " GROUP BY message, facet, value HAVING sum(hits) <> 0 ORDER BY message, facet, value \
     ON CONFLICT (message, facet, value) DO UPDATE SET hits = t.hits + excluded.hits; ",
    "DELETE FROM message_facets t USING ( \
       SELECT DISTINCT message, 1 AS facet, rule AS value FROM delta_hits WHERE hits < 0 \
       UNION ALL SELECT DISTINCT message, 2, client FROM delta_hits WHERE hits < 0) AS d \
     WHERE t.message = d.message AND t.facet = d.facet AND t.value = d.value AND t.hits = 0; ",
    "INSERT INTO messages AS t \
       (id, first_at, last_at, hits, machine_hits, opens, confirmed_opens, possible_opens, created_at) \
     SELECT message, min(first_at), max(last_at), sum(hits), sum(machine), sum(opens), sum(confirmed), sum(possible), \
       clock_timestamp() \
     FROM ( \
       SELECT message, first_at, last_at, hits, CASE WHEN class IN ({machine}) THEN hits ELSE 0 END AS machine, \
         0 AS opens, 0 AS confirmed, 0 AS possible \
       FROM delta_hits WHERE message <> ",
    nil!(),
    " UNION ALL SELECT message, NULL, NULL, 0, 0, \
         (first_at IS NOT NULL)::int - (was_first_at IS NOT NULL)::int, \
         COALESCE(best IN ({confirmed}), false)::int - COALESCE(was_best IN ({confirmed}), false)::int, \
         COALESCE(best IN ({possible}), false)::int - COALESCE(was_best IN ({possible}), false)::int \
       FROM pairs \
     ) AS d GROUP BY message ORDER BY message \
     ON CONFLICT (id) DO UPDATE SET first_at = LEAST(t.first_at, excluded.first_at), \
       last_at = GREATEST(t.last_at, excluded.last_at), hits = t.hits + excluded.hits, \
       machine_hits = t.machine_hits + excluded.machine_hits, opens = t.opens + excluded.opens, \
       confirmed_opens = t.confirmed_opens + excluded.confirmed_opens, \
       possible_opens = t.possible_opens + excluded.possible_opens; ",
    "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on",
);

/// Where in [`APPLY`] opens are written.
pub(super) const OPENS_WRITTEN: std::ops::Range<usize> = 2..5;
