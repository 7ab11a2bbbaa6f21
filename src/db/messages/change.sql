-- Changes a message's values from its sender, or adds one, and writes it to the audit. Returns whether it has hits.
-- $1: the actor. $2: the message. $3: its name; NULL keeps it. $4: when it was sent, if $6 is true. $5: to how many, if
-- $7 is true.
--
-- A time that is cleared is a change of it, too: loaders must forget it.
WITH changed AS (
    INSERT INTO messages AS m (id, name, sent_at, sent_count, sent_changed_at)
    VALUES ($2, coalesce($3, ''), $4, $5, CASE WHEN $4::timestamptz IS NOT NULL THEN clock_timestamp() END)
    ON CONFLICT (id) DO UPDATE
    SET name = coalesce($3, m.name),
        sent_at = CASE WHEN $6 THEN $4 ELSE m.sent_at END,
        sent_count = CASE WHEN $7 THEN $5 ELSE m.sent_count END,
        sent_changed_at = CASE WHEN $6 THEN clock_timestamp() ELSE m.sent_changed_at END
    RETURNING id, name, sent_at, sent_count, hits > 0 AS has_hits
), noted AS (
    INSERT INTO audit (actor, action, subject, detail)
    SELECT $1, 'message changed', id,
        jsonb_build_object('name', name, 'sent_at', sent_at, 'sent_count', sent_count)
    FROM changed
)
SELECT has_hits FROM changed
