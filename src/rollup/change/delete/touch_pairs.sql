-- Finds the opens that lost a hit of `work_hits`, into `touched`. `whole`: no hit is left. A frozen open cannot be
-- computed again: it is deleted completely, or not at all.
-- $1: whether all hits of a recipient or a message are deleted, and therefore their frozen opens.
INSERT INTO touched (message, recipient, was_first_at, was_last_at, was_confirmed_first_at, tid, was_first_class,
    was_confirmed_first_class, was_best, whole)
SELECT t.message, t.recipient, o.first_at, o.last_at, o.confirmed_first_at, o.tid, o.first_class,
    o.confirmed_first_class, o.best, o.hits <= t.here OR o.first_at < s.retained_from
FROM (
    SELECT message, recipient, count(*) AS here
    FROM work_hits
    WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
        AND recipient <> '00000000-0000-0000-0000-000000000000'::uuid
    GROUP BY message, recipient
    ORDER BY message, recipient
) AS t
CROSS JOIN LATERAL (
    SELECT *, opens.ctid AS tid FROM opens
    WHERE opens.message = t.message AND opens.recipient = t.recipient
    LIMIT 1
) AS o
CROSS JOIN rollup_state AS s
WHERE $1::boolean OR o.first_at >= s.retained_from
