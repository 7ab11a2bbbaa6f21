-- Finds messages whose first or last time may have been that of a hit in `work_hits`, into `edges`.
INSERT INTO edges (message, first_at, last_at, first_hour, last_hour)
WITH gone AS (
    SELECT message, min(at) AS first_at, max(at) AS last_at
    FROM work_hits
    WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
    GROUP BY message
)
SELECT m.id, m.first_at, m.last_at,
    (SELECT min(x.hour) FROM message_hours x WHERE x.message = m.id AND x.hits > 0),
    (SELECT max(x.hour) FROM message_hours x WHERE x.message = m.id AND x.hits > 0)
FROM gone g
JOIN messages m ON m.id = g.message
WHERE g.first_at <= m.first_at OR g.last_at >= m.last_at
