-- Subtracts `work_hits`, which are deleted, from the counts: sums them up into `delta_hits` with negative numbers.
INSERT INTO delta_hits (message, image, hour, class, rule, client, hits)
SELECT message, image, hour, class, rule, client, -count(*)
FROM (SELECT *, {slot of at} AS hour FROM work_hits) AS h
GROUP BY message, image, hour, class, rule, client
