-- Who is not to be recorded. Hashes (see `privacy_key` in `installation`), never ids: the list names nobody, so that it may outlive
-- an erasure.
CREATE SEQUENCE suppressions_change;
CREATE TABLE suppressions (
    hash    bytea PRIMARY KEY CHECK (octet_length(hash) = 16),
    since   timestamptz NOT NULL,
    until   timestamptz CHECK (until >= since),
    change  bigint NOT NULL
);
COMMENT ON TABLE suppressions IS 'Recipients, as keyed hashes, whose hits from since on (before until, where they opted in again) are not recorded.';
COMMENT ON COLUMN suppressions.change IS 'Grows with every change, so that whoever follows asks for what is beyond the last that it saw.';
-- For those who follow.
CREATE INDEX suppressions_by_change ON suppressions (change);

-- What links of opt-out pages are signed with where the installation has no PIXELD_SIGNING_KEYS.
INSERT INTO installation (name, secret)
VALUES ('opt_out_key', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
