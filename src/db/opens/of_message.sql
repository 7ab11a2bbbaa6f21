-- Opens of a message by recipient. Each row also has the last recipient that was read, and how many were; there is at
-- least one row, unless the message has no further opens.
-- $1: the message. $2: the recipient to continue after. $3: the classes wanted. $4: maximum opens to read. $5: maximum
-- opens to return.
WITH looked AS MATERIALIZED (
    SELECT recipient, first_at, last_at, confirmed_first_at, hits, best
    FROM opens
    WHERE message = $1 AND recipient > $2
    ORDER BY recipient
    LIMIT $4
), reached AS (
    SELECT recipient AS reached FROM looked ORDER BY recipient DESC LIMIT 1
)
SELECT found.*, reached, (SELECT count(*) FROM looked)
FROM reached
LEFT JOIN LATERAL (
    SELECT recipient, '', first_at, last_at, confirmed_first_at, hits, best
    FROM looked
    WHERE best = ANY($3)
    ORDER BY recipient
    LIMIT $5
) AS found ON true
