-- Who asked to be forgotten, as keyed hashes; which nodes have done it; and what has to be known to forget user agents, too.

CREATE TABLE erasures (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient_hash  bytea NOT NULL CHECK (octet_length(recipient_hash) = 16),
    requested_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    hits            bigint NOT NULL DEFAULT 0 CHECK (hits >= 0),
    opens           bigint NOT NULL DEFAULT 0 CHECK (opens >= 0),
    deleted_at      timestamptz,
    put_back_at     timestamptz
);
COMMENT ON TABLE erasures IS 'One row each time somebody was to be forgotten: the recipient''s keyed hash and what was deleted; it names nobody.';
COMMENT ON COLUMN erasures.deleted_at IS 'When all hits and opens were gone from the database; none: it is under way, or was interrupted and will be taken up.';
COMMENT ON COLUMN erasures.put_back_at IS 'When a node brought it back, which remembered it while a restored database did not.';
CREATE INDEX erasures_recipient_hash ON erasures (recipient_hash);
CREATE INDEX erasures_unfinished ON erasures (id) WHERE deleted_at IS NULL;

-- Loaders compare the version within each batch's transaction, so that none judges by an older list of erasures, or by a
-- memory of user agents that are gone.
CREATE TABLE erasure_state (
    one        bool PRIMARY KEY DEFAULT true CHECK (one),
    version    bigint NOT NULL DEFAULT 0,
    latest_at  timestamptz
);
COMMENT ON TABLE erasure_state IS 'One row: moves with each erasure and with each user agent that is forgotten; latest_at is the latest requested_at.';
INSERT INTO erasure_state DEFAULT VALUES;

CREATE TABLE nodes (
    node        uuid PRIMARY KEY,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_to   bigint NOT NULL DEFAULT 0,
    retired_at  timestamptz
);
COMMENT ON TABLE nodes IS 'Data directories that may hold hits: each must carry out every erasure. One that is gone for good is retired, or its row deleted by hand.';
COMMENT ON COLUMN nodes.erased_to IS 'All erasures up to this id are carried out in its data directory.';

CREATE TABLE erasure_nodes (
    erasure   bigint NOT NULL REFERENCES erasures ON DELETE CASCADE,
    node      uuid NOT NULL,
    name      text NOT NULL,
    done_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    segments  bigint NOT NULL,
    hits      bigint NOT NULL,
    files     bigint NOT NULL,
    PRIMARY KEY (erasure, node)
);
COMMENT ON TABLE erasure_nodes IS 'Receipts: what a node erased on its disk for one erasure, and when it was done; no key to nodes, so that they outlive them.';

-- Hits of people who were erased before they were loaded.
ALTER TABLE batches ADD COLUMN erased int NOT NULL DEFAULT 0 CHECK (erased >= 0);
ALTER TABLE batches DROP CONSTRAINT every_hit_is_accounted_for;
ALTER TABLE batches ADD CONSTRAINT every_hit_is_accounted_for CHECK (
    next_seq - first_seq
    = loaded::bigint + throttled + suppressed + quarantined + expired + unknown_image + missing + erased
);

-- A user agent can tell a person from all others, so those that no hit has any more must go. Loaders tell once a day which they
-- use; doubted_at is set while one is looked for in hits, and taken back by whoever uses it.
ALTER TABLE user_agents ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE user_agents ADD COLUMN doubted_at timestamptz;
CREATE INDEX user_agents_used_at ON user_agents (used_at);
-- Few, and asked for every few seconds.
CREATE INDEX user_agents_doubted ON user_agents (id) WHERE doubted_at IS NOT NULL;

-- Who asked for an erasure, among all the opt-outs and edits that the audit fills with.
CREATE INDEX audit_erasures ON audit ((detail->>'erasure')) WHERE action = 'recipient erased';
