-- Reads hits, the newest first: each row has the number of rows read and the last of them; then the wanted ones, in
-- words.
-- $1, $2: the window's first and last time. $3, $4, $5: time, spool and number of the hit to continue after.
-- $6: maximum rows to read. $7, $8, $9: the message, recipient and image wanted; NULL for any.
-- $10: maximum rows to return.
WITH looked AS MATERIALIZED (
    SELECT * FROM hits
    WHERE at >= $1 AND at <= $2 AND at <= $3 AND (at, spool, seq) < ($3, $4, $5)
    ORDER BY at DESC, spool DESC, seq DESC
    LIMIT $6
), read AS (
    SELECT count(*) OVER () AS rows, at, spool, seq FROM looked ORDER BY at, spool, seq LIMIT 1
)
SELECT read.rows, read.at, read.spool, read.seq, h.*, coalesce(i.title, ''), coalesce(m.name, ''),
    coalesce(c.name, 'class ' || h.class), coalesce(r.name, 'rule ' || h.rule), coalesce(r.sentence, ''),
    coalesce(k.name, 'client ' || h.client), coalesce(n.name, 'network ' || h.network), coalesce(u.user_agent, '')
FROM read
LEFT JOIN LATERAL (
    SELECT at, spool, seq, image, message, recipient, ip, class, rule, client, network, user_agent
    FROM looked
    WHERE ($7::uuid IS NULL OR message = $7)
        AND ($8::uuid IS NULL OR recipient = $8)
        AND ($9::uuid IS NULL OR image = $9)
    ORDER BY at DESC, spool DESC, seq DESC
    LIMIT $10
) AS h ON true
LEFT JOIN images i ON i.id = h.image
LEFT JOIN messages m ON m.id = h.message
LEFT JOIN words c ON c.kind = 'class' AND c.number = h.class
LEFT JOIN words r ON r.kind = 'rule' AND r.number = h.rule
LEFT JOIN words k ON k.kind = 'client' AND k.number = h.client
LEFT JOIN words n ON n.kind = 'network' AND n.number = h.network
LEFT JOIN user_agents u ON u.id = h.user_agent
ORDER BY h.at DESC, h.spool DESC, h.seq DESC
