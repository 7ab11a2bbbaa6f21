-- The tables between a mail client's GET and a row that a sender can read. Columns and their order are fixed: hits are
-- binary-COPYed by position, and the order wastes no byte on alignment (157 bytes a hit).

CREATE TABLE images (
    id          uuid PRIMARY KEY,
    title       text NOT NULL DEFAULT '',
    media_type  text NOT NULL CHECK (media_type IN ('image/gif', 'image/png', 'image/jpeg', 'image/webp')),
    width       int NOT NULL CHECK (width BETWEEN 1 AND 4096),
    height      int NOT NULL CHECK (height BETWEEN 1 AND 4096),
    bytes       bytea NOT NULL CHECK (octet_length(bytes) BETWEEN 1 AND 1048576),
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
COMMENT ON TABLE images IS 'Uploaded pictures, byte for byte; a deleted one keeps its row, so that old mails get the transparent GIF.';
-- Pictures are compressed already; trying again costs time at each write and each read.
ALTER TABLE images ALTER COLUMN bytes SET STORAGE EXTERNAL;
-- For the resync, which asks what changed since it last looked.
CREATE INDEX images_updated_at ON images (updated_at);

-- No key and no foreign key: exactly once comes from spool_marks, a key would cost 41 to 57 bytes a hit, and both could
-- not be kept if hits were distributed by recipient. No partitions here: the loader makes one a day, before its COPY.
CREATE TABLE hits (
    at          timestamptz NOT NULL,
    seq         bigint NOT NULL,
    user_agent  bigint NOT NULL,
    sent_at     timestamptz,
    message     uuid NOT NULL,
    recipient   uuid NOT NULL,
    image       uuid NOT NULL,
    spool       int NOT NULL,
    class       smallint NOT NULL,
    rule        smallint NOT NULL,
    network     smallint NOT NULL,
    prefetch    bool NOT NULL,
    ip          inet
) PARTITION BY RANGE (at);
COMMENT ON TABLE hits IS 'One row for each recorded fetch of a pixel; an absent message or recipient is the nil UUID, never NULL; one partition a day.';
CREATE INDEX hits_at ON hits (at);

CREATE TABLE user_agents (
    id          bigint PRIMARY KEY,
    user_agent  text NOT NULL
);
COMMENT ON TABLE user_agents IS 'Each user agent once; its id is the first 8 bytes of its SHA-256, so that a hit needs no look-up on its way in.';
INSERT INTO user_agents (id, user_agent) VALUES (0, '(not recorded: too many new user agents in an hour)');

CREATE TABLE spool_marks (
    spool            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool_uuid       uuid NOT NULL UNIQUE,
    node             text NOT NULL,
    next_seq         bigint NOT NULL DEFAULT 0 CHECK (next_seq >= 0),
    backend_pid      int,
    -- A pid is used again; with its start it names one backend, so that a loader ends its predecessor and nobody else.
    backend_started  timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE spool_marks IS 'How far each spool is loaded: the next sequence number to load; it moves in the transaction that brings the hits.';

CREATE TABLE batches (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool          int NOT NULL,
    first_seq      bigint NOT NULL CHECK (first_seq >= 0),
    next_seq       bigint NOT NULL CHECK (next_seq > first_seq),
    loaded         int NOT NULL DEFAULT 0 CHECK (loaded >= 0),
    throttled      int NOT NULL DEFAULT 0 CHECK (throttled >= 0),
    suppressed     int NOT NULL DEFAULT 0 CHECK (suppressed >= 0),
    quarantined    int NOT NULL DEFAULT 0 CHECK (quarantined >= 0),
    expired        int NOT NULL DEFAULT 0 CHECK (expired >= 0),
    unknown_image  int NOT NULL DEFAULT 0 CHECK (unknown_image >= 0),
    missing        int NOT NULL DEFAULT 0 CHECK (missing >= 0),
    min_at         timestamptz,
    max_at         timestamptz,
    loaded_at      timestamptz NOT NULL DEFAULT now(),
    published      bigint UNIQUE,
    events_before  bigint,
    -- A second way to notice that a batch is loaded twice, should the mark ever be wrong.
    UNIQUE (spool, first_seq),
    CONSTRAINT every_hit_is_accounted_for CHECK (
        next_seq - first_seq
        = loaded::bigint + throttled + suppressed + quarantined + expired + unknown_image + missing
    ),
    CONSTRAINT loaded_hits_have_a_time CHECK (loaded = 0 OR (min_at IS NOT NULL AND max_at >= min_at))
);
COMMENT ON TABLE batches IS 'What became of each run of sequence numbers of a spool: so many loaded, so many dropped and why; nothing in between.';

CREATE TABLE rollup_state (
    one            bool PRIMARY KEY DEFAULT true CHECK (one),
    published      bigint NOT NULL DEFAULT 0,
    events         bigint NOT NULL DEFAULT 0,
    retained_from  timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00'
);
COMMENT ON TABLE rollup_state IS 'One row, locked by whoever changes opens, counts or loaded hits: how many batches and events are published, and since when hits are kept.';
INSERT INTO rollup_state DEFAULT VALUES;

CREATE TABLE installation (
    name    text PRIMARY KEY,
    secret  bytea NOT NULL
);
COMMENT ON TABLE installation IS 'Secrets of this installation that all its nodes share and nobody ever types.';
-- 32 random bytes without an extension: two version 4 UUIDs carry 244 random bits, and SHA-256 spreads them.
INSERT INTO installation (name, secret)
VALUES ('throttle_key', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

CREATE VIEW hits_readable AS
SELECT
    h.at,
    h.image,
    NULLIF(h.message, '00000000-0000-0000-0000-000000000000') AS message,
    NULLIF(h.recipient, '00000000-0000-0000-0000-000000000000') AS recipient,
    CASE h.class
        WHEN 0 THEN 'unknown'
        WHEN 1 THEN 'human'
        WHEN 2 THEN 'proxied'
        WHEN 3 THEN 'privacy_prefetch'
        WHEN 4 THEN 'prefetch'
        WHEN 5 THEN 'scanner'
        WHEN 6 THEN 'bot'
        ELSE 'class ' || h.class
    END AS class,
    CASE h.rule WHEN 0 THEN 'not judged yet' ELSE 'rule ' || h.rule END AS rule,
    CASE h.network WHEN 0 THEN 'none known' ELSE 'network ' || h.network END AS network,
    h.prefetch,
    h.sent_at,
    h.ip,
    u.user_agent,
    h.spool,
    h.seq
FROM hits h
LEFT JOIN user_agents u ON u.id = h.user_agent;
COMMENT ON VIEW hits_readable IS 'Hits for people: user agent, class, rule and network in words, an absent message or recipient as NULL.';
