-- Counts the hits in `verdicts` under their new class, rule and client instead of the old ones, into `delta_hits`.
INSERT INTO delta_hits (message, image, hour, class, rule, client, hits)
SELECT message, image, hour, class, rule, client, sum(hits)
FROM (
    SELECT w.message, w.image, {slot of w.at} AS hour, d.*
    FROM work_hits w
    JOIN verdicts v USING (n)
    CROSS JOIN LATERAL (
        VALUES (w.class, w.rule, w.client, -1), (v.class, v.rule, v.client, 1)
    ) AS d (class, rule, client, hits)
) AS h
GROUP BY message, image, hour, class, rule, client
HAVING sum(hits) <> 0
