-- Writes `pairs` and `delta_hits` into the counts. A row of counts that are all zero is deleted, except in `messages`.

-- What is added to the hours: hits, and the new first (confirmed) time of opens minus the old one.
INSERT INTO delta_hours (message, hour, class, hits, first_opens, first_confirmed_opens)
SELECT message, hour, class, sum(hits), sum(firsts), sum(confirmed)
FROM (
    SELECT message, hour, class, hits, 0 AS firsts, 0 AS confirmed FROM delta_hits
    UNION ALL
    SELECT message, {slot of first_at}, first_class, 0, 1, 0
    FROM pairs
    WHERE first_at IS NOT NULL
        AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class)
    UNION ALL
    SELECT message, {slot of was_first_at}, was_first_class, 0, -1, 0
    FROM pairs
    WHERE was_first_at IS NOT NULL
        AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class)
    UNION ALL
    SELECT message, {slot of confirmed_first_at}, confirmed_first_class, 0, 0, 1
    FROM pairs
    WHERE confirmed_first_at IS NOT NULL
        AND (confirmed_first_at, confirmed_first_class)
            IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class)
    UNION ALL
    SELECT message, {slot of was_confirmed_first_at}, was_confirmed_first_class, 0, 0, -1
    FROM pairs
    WHERE was_confirmed_first_at IS NOT NULL
        AND (confirmed_first_at, confirmed_first_class)
            IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class)
) AS d
GROUP BY message, hour, class
HAVING sum(hits) <> 0 OR sum(firsts) <> 0 OR sum(confirmed) <> 0;

-- message_hours
INSERT INTO message_hours AS t (message, hour, class, hits, first_opens, first_confirmed_opens)
SELECT message, hour, class, hits, first_opens, first_confirmed_opens
FROM delta_hours
WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
ORDER BY message, hour, class
ON CONFLICT (message, hour, class) DO UPDATE
SET hits = t.hits + excluded.hits, first_opens = t.first_opens + excluded.first_opens,
    first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens;

DELETE FROM message_hours t USING delta_hours d
WHERE (d.hits < 0 OR d.first_opens < 0 OR d.first_confirmed_opens < 0)
    AND t.message = d.message AND t.hour = d.hour AND t.class = d.class
    AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0;

-- site_hours
INSERT INTO site_hours AS t (hour, class, hits, first_opens, first_confirmed_opens)
SELECT hour, class, sum(hits), sum(first_opens), sum(first_confirmed_opens)
FROM delta_hours
GROUP BY hour, class
HAVING sum(hits) <> 0 OR sum(first_opens) <> 0 OR sum(first_confirmed_opens) <> 0
ORDER BY hour, class
ON CONFLICT (hour, class) DO UPDATE
SET hits = t.hits + excluded.hits, first_opens = t.first_opens + excluded.first_opens,
    first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens;

DELETE FROM site_hours t USING (
    SELECT DISTINCT hour, class FROM delta_hours
    WHERE hits < 0 OR first_opens < 0 OR first_confirmed_opens < 0
) AS d
WHERE t.hour = d.hour AND t.class = d.class
    AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0;

-- image_hours
INSERT INTO image_hours AS t (image, hour, hits)
SELECT image, hour, sum(hits)
FROM delta_hits
GROUP BY image, hour
HAVING sum(hits) <> 0
ORDER BY image, hour
ON CONFLICT (image, hour) DO UPDATE SET hits = t.hits + excluded.hits;

DELETE FROM image_hours t USING (SELECT DISTINCT image, hour FROM delta_hits WHERE hits < 0) AS d
WHERE t.image = d.image AND t.hour = d.hour AND t.hits = 0;

-- message_facets
INSERT INTO message_facets AS t (message, facet, value, hits)
SELECT message, facet, value, sum(hits)
FROM (
    SELECT message, 1 AS facet, rule AS value, hits FROM delta_hits
    UNION ALL
    SELECT message, 2, client, hits FROM delta_hits
) AS d
WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
GROUP BY message, facet, value
HAVING sum(hits) <> 0
ORDER BY message, facet, value
ON CONFLICT (message, facet, value) DO UPDATE SET hits = t.hits + excluded.hits;

DELETE FROM message_facets t USING (
    SELECT DISTINCT message, 1 AS facet, rule AS value FROM delta_hits WHERE hits < 0
    UNION ALL
    SELECT DISTINCT message, 2, client FROM delta_hits WHERE hits < 0
) AS d
WHERE t.message = d.message AND t.facet = d.facet AND t.value = d.value AND t.hits = 0;

-- messages
INSERT INTO messages AS t
    (id, first_at, last_at, hits, machine_hits, opens, confirmed_opens, possible_opens, created_at)
SELECT message, min(first_at), max(last_at), sum(hits), sum(machine), sum(opens), sum(confirmed), sum(possible),
    clock_timestamp()
FROM (
    SELECT message, first_at, last_at, hits, CASE WHEN class IN ({machine}) THEN hits ELSE 0 END AS machine,
        0 AS opens, 0 AS confirmed, 0 AS possible
    FROM delta_hits
    WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
    UNION ALL
    SELECT message, NULL, NULL, 0, 0,
        (first_at IS NOT NULL)::int - (was_first_at IS NOT NULL)::int,
        COALESCE(best IN ({confirmed}), false)::int - COALESCE(was_best IN ({confirmed}), false)::int,
        COALESCE(best IN ({possible}), false)::int - COALESCE(was_best IN ({possible}), false)::int
    FROM pairs
) AS d
GROUP BY message
ORDER BY message
ON CONFLICT (id) DO UPDATE
SET first_at = LEAST(t.first_at, excluded.first_at), last_at = GREATEST(t.last_at, excluded.last_at),
    hits = t.hits + excluded.hits, machine_hits = t.machine_hits + excluded.machine_hits,
    opens = t.opens + excluded.opens, confirmed_opens = t.confirmed_opens + excluded.confirmed_opens,
    possible_opens = t.possible_opens + excluded.possible_opens;
