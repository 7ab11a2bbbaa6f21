-- Writes the first and last time of the messages in `edges`. If the hits of a first or last slot are older than the
-- retention, the time stays if it is in that slot.
-- $1, $2, $3: messages with their first and last hit, as far as hits were found.
UPDATE messages AS t
SET first_at = COALESCE(
        x.first_hit, CASE WHEN {slot of e.first_at} = e.first_hour THEN e.first_at ELSE e.first_hour END),
    last_at = COALESCE(
        x.last_hit, CASE WHEN {slot of e.last_at} = e.last_hour THEN e.last_at ELSE e.last_hour END)
FROM edges e
LEFT JOIN unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS x (message, first_hit, last_hit)
    ON x.message = e.message
WHERE t.id = e.message
