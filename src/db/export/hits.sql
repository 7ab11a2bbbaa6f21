-- The hits of a recipient in one day as JSON, one per row, in words like `hits_readable`.
-- $1: the recipient. {day}: the partition's name.
SELECT row_to_json(r)::text
FROM (
    SELECT h.at, NULLIF(h.message, '00000000-0000-0000-0000-000000000000') AS message, h.image, h.sent_at,
        COALESCE(c.name, 'class ' || h.class) AS class,
        COALESCE(w.name, 'rule ' || h.rule) AS rule, w.sentence AS rule_says,
        COALESCE(n.name, 'network ' || h.network) AS network,
        COALESCE(k.name, 'client ' || h.client) AS client,
        h.prefetch, host(h.ip) AS address, u.user_agent
    FROM {day} h
    LEFT JOIN user_agents u ON u.id = h.user_agent
    LEFT JOIN words c ON c.kind = 'class' AND c.number = h.class
    LEFT JOIN words w ON w.kind = 'rule' AND w.number = h.rule
    LEFT JOIN words n ON n.kind = 'network' AND n.number = h.network
    LEFT JOIN words k ON k.kind = 'client' AND k.number = h.client
    WHERE h.recipient = $1
    ORDER BY h.at, h.spool, h.seq
) AS r
