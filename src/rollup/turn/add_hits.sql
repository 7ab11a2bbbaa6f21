-- Sums up `work_hits` into `delta_hits`.
INSERT INTO delta_hits (message, image, hour, class, rule, client, hits, first_at, last_at)
SELECT message, image, hour, class, rule, client, count(*), min(at), max(at)
FROM (SELECT *, {slot of at} AS hour FROM work_hits) AS h
GROUP BY message, image, hour, class, rule, client
