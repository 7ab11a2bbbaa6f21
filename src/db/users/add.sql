-- Adds a user and writes it to the audit. No row: the name is in use.
-- $1: the actor. $2: the name. $3: the role. $4: the password's hash.
WITH added AS (
    INSERT INTO users (name, role, password_hash)
    VALUES ($2, $3, $4)
    ON CONFLICT (lower(name)) DO NOTHING
    RETURNING id
), noted AS (
    INSERT INTO audit (actor, action, subject, detail)
    SELECT $1, 'user added', $2, jsonb_build_object('role', $3::text) FROM added
)
SELECT id FROM added
