-- Finds the opens that have a hit in `work_hits` with a new class, into `touched`, except frozen ones. `whole`: all of
-- its hits are in the chunk.
INSERT INTO touched (message, recipient, was_first_at, was_last_at, was_confirmed_first_at, tid, was_first_class,
    was_confirmed_first_class, was_best, whole)
SELECT t.message, t.recipient, o.first_at, o.last_at, o.confirmed_first_at, o.tid, o.first_class,
    o.confirmed_first_class, o.best, o.hits = t.here
FROM (
    SELECT w.message, w.recipient, count(*) AS here
    FROM work_hits w
    LEFT JOIN verdicts v USING (n)
    WHERE w.message <> '00000000-0000-0000-0000-000000000000'::uuid
        AND w.recipient <> '00000000-0000-0000-0000-000000000000'::uuid
    GROUP BY w.message, w.recipient
    HAVING bool_or(v.class <> w.class)
    ORDER BY w.message, w.recipient
) AS t
CROSS JOIN LATERAL (
    SELECT *, opens.ctid AS tid FROM opens
    WHERE opens.message = t.message AND opens.recipient = t.recipient
    LIMIT 1
) AS o
CROSS JOIN rollup_state AS s
WHERE o.first_at >= s.retained_from
