-- Messages whose name holds some words, in the list's order. Each row also has the last place that was looked at, and
-- how many messages were; there is one row at least, unless there are no further messages.
-- $1, $2: time and id of the place to go on after. $3: how many messages to look at. $4: the words' pattern.
-- $5: how many to show at most. {columns}: those of a message.
WITH looked AS MATERIALIZED (
    SELECT id, name, coalesce(last_at, created_at) AS at
    FROM messages
    WHERE (coalesce(last_at, created_at), id) < ($1, $2)
    ORDER BY coalesce(last_at, created_at) DESC, id DESC
    LIMIT $3
), reached AS (
    SELECT at AS reached_at, id AS reached_id FROM looked ORDER BY at, id LIMIT 1
), met AS (
    SELECT id FROM looked WHERE name ~ $4 ORDER BY at DESC, looked.id DESC LIMIT $5
)
SELECT found.*, reached_at, reached_id, (SELECT count(*) FROM looked)
FROM reached
LEFT JOIN (SELECT {columns} FROM messages WHERE id IN (SELECT id FROM met)) AS found ON true
ORDER BY found.at DESC, found.id DESC
