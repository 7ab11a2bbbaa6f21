-- Opens, and the counts that people look at. All of them follow from `hits`: computed again from there, the same rows come
-- out. Whoever changes one of them locks `rollup_state` first.

-- Which mail client or proxy the user agent names, as the loader read it; 0 is none that we know.
ALTER TABLE hits ADD COLUMN client smallint NOT NULL DEFAULT 0;

-- What keys that are no UUIDs are made UUIDs under (version 5).
INSERT INTO installation (name, secret) VALUES ('key_namespace', uuid_send(gen_random_uuid()));

CREATE TABLE messages (
    id               uuid PRIMARY KEY,
    name             text NOT NULL DEFAULT '',
    sent_at          timestamptz,
    sent_count       bigint CHECK (sent_count >= 0),
    first_at         timestamptz,
    last_at          timestamptz,
    opens            bigint NOT NULL DEFAULT 0,
    confirmed_opens  bigint NOT NULL DEFAULT 0,
    possible_opens   bigint NOT NULL DEFAULT 0,
    hits             bigint NOT NULL DEFAULT 0,
    machine_hits     bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    sent_changed_at  timestamptz
);
COMMENT ON TABLE messages IS 'One row a message, made when its first hit is rolled up or when it is named; name, sent_at and sent_count are the sender''s.';
COMMENT ON COLUMN messages.sent_changed_at IS 'When sent_at was told, by clock_timestamp(): loaders follow it; who writes sent_at by hand sets both.';
COMMENT ON COLUMN messages.opens IS 'Rows of opens; those neither confirmed nor possible are machines only.';
-- For the loaders, which follow the times of sending.
CREATE INDEX messages_sent_changed_at ON messages (sent_changed_at) WHERE sent_changed_at IS NOT NULL;

CREATE TABLE opens (
    message                uuid NOT NULL,
    recipient              uuid NOT NULL,
    image                  uuid NOT NULL,
    first_at               timestamptz NOT NULL,
    last_at                timestamptz NOT NULL,
    confirmed_first_at     timestamptz,
    hits                   bigint NOT NULL,
    confirmed_hits         bigint NOT NULL,
    first_seq              bigint NOT NULL,
    first_spool            int NOT NULL,
    best                   smallint NOT NULL,
    first_class            smallint NOT NULL,
    confirmed_first_class  smallint,
    PRIMARY KEY (message, recipient)
);
COMMENT ON TABLE opens IS 'What hits say about one message and one recipient; only hits with both make one.';
COMMENT ON COLUMN opens.image IS 'The image of the earliest hit, by (at, spool, seq); first_class is that hit''s class.';
COMMENT ON COLUMN opens.best IS 'The best class of its hits: human, proxied, unknown, privacy_prefetch, prefetch, scanner, bot.';
COMMENT ON COLUMN opens.confirmed_first_class IS 'The class of the first confirmed hit; of several at the same time, human.';

CREATE TABLE message_hours (
    message                uuid NOT NULL,
    hour                   timestamptz NOT NULL,
    class                  smallint NOT NULL,
    hits                   bigint NOT NULL,
    first_opens            bigint NOT NULL,
    first_confirmed_opens  bigint NOT NULL,
    PRIMARY KEY (message, hour, class)
);
COMMENT ON TABLE message_hours IS 'Hits of a message in an hour (UTC) by class, and how many opens had their first (confirmed) hit among them.';

CREATE TABLE site_hours (
    hour                   timestamptz NOT NULL,
    class                  smallint NOT NULL,
    hits                   bigint NOT NULL,
    first_opens            bigint NOT NULL,
    first_confirmed_opens  bigint NOT NULL,
    PRIMARY KEY (hour, class)
);
COMMENT ON TABLE site_hours IS 'The same over all messages, hits without a message included.';

CREATE TABLE image_hours (
    image  uuid NOT NULL,
    hour   timestamptz NOT NULL,
    hits   bigint NOT NULL,
    PRIMARY KEY (image, hour)
);
COMMENT ON TABLE image_hours IS 'Hits of an image in an hour (UTC).';

CREATE TABLE message_facets (
    message  uuid NOT NULL,
    facet    smallint NOT NULL,
    value    int NOT NULL,
    hits     bigint NOT NULL,
    PRIMARY KEY (message, facet, value)
);
COMMENT ON TABLE message_facets IS 'Hits of a message by rule (facet 1) and by client (facet 2).';

-- Batches that are not rolled up yet: few, or the backlog of the rollup.
CREATE INDEX batches_pending ON batches (id) WHERE published IS NULL;

-- How good a class is, the best first: human, proxied, unknown, privacy_prefetch, prefetch, scanner, bot.
CREATE FUNCTION class_rank(class smallint) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ARRAY[2, 0, 1, 3, 4, 5, 6]::smallint[])[class + 1];
CREATE FUNCTION class_of_rank(rank smallint) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ARRAY[1, 2, 0, 3, 4, 5, 6]::smallint[])[rank + 1];

-- The words for the numbers in hits. The program that knows them writes them here when it starts.
CREATE TABLE words (
    kind      text NOT NULL CHECK (kind IN ('class', 'rule', 'network', 'client')),
    number    smallint NOT NULL,
    name      text NOT NULL,
    class     smallint,
    sentence  text NOT NULL DEFAULT '',
    PRIMARY KEY (kind, number)
);
COMMENT ON TABLE words IS 'Names of classes, rules, networks and clients; for a rule its class and the sentence that explains it.';

-- Replaced in place: reports that people built on it stay, and so does who may read it.
CREATE OR REPLACE VIEW hits_readable AS
SELECT
    h.at,
    h.image,
    NULLIF(h.message, '00000000-0000-0000-0000-000000000000') AS message,
    NULLIF(h.recipient, '00000000-0000-0000-0000-000000000000') AS recipient,
    COALESCE(c.name, 'class ' || h.class) AS class,
    COALESCE(r.name, 'rule ' || h.rule) AS rule,
    COALESCE(n.name, 'network ' || h.network) AS network,
    h.prefetch,
    h.sent_at,
    h.ip,
    u.user_agent,
    h.spool,
    h.seq,
    COALESCE(k.name, 'client ' || h.client) AS client
FROM hits h
LEFT JOIN user_agents u ON u.id = h.user_agent
LEFT JOIN words c ON c.kind = 'class' AND c.number = h.class
LEFT JOIN words r ON r.kind = 'rule' AND r.number = h.rule
LEFT JOIN words n ON n.kind = 'network' AND n.number = h.network
LEFT JOIN words k ON k.kind = 'client' AND k.number = h.client;
COMMENT ON VIEW hits_readable IS 'Hits for people: user agent, class, rule, network and client in words, an absent message or recipient as NULL.';
