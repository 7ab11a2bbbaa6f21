-- The temporary tables of a tally's connection. Each is empty when a transaction begins.

-- The current hits. `n` is the batch's or the hit's own number, `tid` the row in its partition; these, and what only
-- judging needs, are NULL if they are not used.
CREATE TEMP TABLE IF NOT EXISTS work_hits (
    at timestamptz NOT NULL,
    seq bigint NOT NULL,
    message uuid NOT NULL,
    recipient uuid NOT NULL,
    image uuid NOT NULL,
    spool int NOT NULL,
    class smallint NOT NULL,
    rule smallint NOT NULL,
    client smallint NOT NULL,
    n int,
    tid tid,
    network smallint,
    prefetch bool,
    user_agent bigint,
    sent_at timestamptz
) ON COMMIT DELETE ROWS;

-- New verdicts on hits, by `n`.
CREATE TEMP TABLE IF NOT EXISTS verdicts (
    n int NOT NULL,
    class smallint NOT NULL,
    rule smallint NOT NULL,
    client smallint NOT NULL,
    tid tid NOT NULL
) ON COMMIT DELETE ROWS;

-- Opens that must be computed again, in their old state. `whole`: `work_hits` is enough, no other hit is searched for.
CREATE TEMP TABLE IF NOT EXISTS touched (
    message uuid NOT NULL,
    recipient uuid NOT NULL,
    was_first_at timestamptz NOT NULL,
    was_last_at timestamptz NOT NULL,
    was_confirmed_first_at timestamptz,
    tid tid NOT NULL,
    was_first_class smallint NOT NULL,
    was_confirmed_first_class smallint,
    was_best smallint NOT NULL,
    whole bool NOT NULL
) ON COMMIT DELETE ROWS;

-- The hits from which those are computed.
CREATE TEMP TABLE IF NOT EXISTS pair_hits (
    at timestamptz NOT NULL,
    seq bigint NOT NULL,
    message uuid NOT NULL,
    recipient uuid NOT NULL,
    image uuid NOT NULL,
    spool int NOT NULL,
    class smallint NOT NULL
) ON COMMIT DELETE ROWS;

-- Opens in their old state (`was_…` and `tid`, NULL for a new one) and new state (NULL for a deleted one).
CREATE TEMP TABLE IF NOT EXISTS pairs (
    message uuid NOT NULL,
    recipient uuid NOT NULL,
    image uuid,
    first_at timestamptz,
    last_at timestamptz,
    confirmed_first_at timestamptz,
    hits bigint,
    confirmed_hits bigint,
    first_seq bigint,
    was_first_at timestamptz,
    was_confirmed_first_at timestamptz,
    first_spool int,
    tid tid,
    best smallint,
    first_class smallint,
    confirmed_first_class smallint,
    was_best smallint,
    was_first_class smallint,
    was_confirmed_first_class smallint
) ON COMMIT DELETE ROWS;

-- Messages that may have lost their first or last hit, and the first and last slot that still has hits.
CREATE TEMP TABLE IF NOT EXISTS edges (
    message uuid NOT NULL,
    first_at timestamptz,
    last_at timestamptz,
    first_hour timestamptz,
    last_hour timestamptz
) ON COMMIT DELETE ROWS;

-- What is added to the counts, or subtracted with a negative number: by hits, and by the slots of hits and opens.
CREATE TEMP TABLE IF NOT EXISTS delta_hits (
    message uuid NOT NULL,
    image uuid NOT NULL,
    hour timestamptz NOT NULL,
    hits bigint NOT NULL,
    first_at timestamptz,
    last_at timestamptz,
    class smallint NOT NULL,
    rule smallint NOT NULL,
    client smallint NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS delta_hours (
    message uuid NOT NULL,
    hour timestamptz NOT NULL,
    hits bigint NOT NULL,
    first_opens bigint NOT NULL,
    first_confirmed_opens bigint NOT NULL,
    class smallint NOT NULL
) ON COMMIT DELETE ROWS;
