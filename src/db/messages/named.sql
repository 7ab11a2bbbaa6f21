-- Messages whose name contains some words, in the list's order. Each row also has the last place that was read, and how
-- many messages were; there is at least one row, unless there are no further messages.
-- $1, $2: time and id of the place to continue after. $3: maximum messages to read. $4: the words' pattern. $5: maximum
-- messages to return. {columns}: those of a message.
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
