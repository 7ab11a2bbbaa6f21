-- Who may see the admin page, and who changed what.

CREATE TABLE users (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                 text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 64),
    role                 text NOT NULL CHECK (role IN ('admin', 'viewer')),
    password_hash        text NOT NULL CHECK (char_length(password_hash) BETWEEN 1 AND 512),
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at          timestamptz,
    sessions_valid_from  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE users IS 'Those who may sign in to the admin page; a disabled one keeps the row.';
COMMENT ON COLUMN users.password_hash IS 'A PHC string of Argon2id.';
COMMENT ON COLUMN users.sessions_valid_from IS 'Sessions that began earlier have ended: a new password, or "sign out everywhere".';
-- Whoever signs in need not know how the name was capitalised, and no two may differ by that alone.
CREATE UNIQUE INDEX users_name ON users (lower(name));

CREATE TABLE sessions (
    token_sha256  bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    user_id       bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_agent    text NOT NULL DEFAULT '' CHECK (char_length(user_agent) <= 200)
);
COMMENT ON TABLE sessions IS 'Browsers that are signed in: the hash of each one''s token, so that who reads this table cannot sign in with it.';
CREATE INDEX sessions_user_id ON sessions (user_id);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL DEFAULT '',
    detail   jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE audit IS 'Who erased, exported, opted out or changed users, and when; the actor is a user''s name, or "command line".';
