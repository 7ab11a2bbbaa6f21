-- Finds opens whose hits are already deleted, into `touched`. `whole`: it is frozen, and is deleted; others are
-- computed again.
-- $1, $2: their messages and recipients.
INSERT INTO touched (message, recipient, was_first_at, was_last_at, was_confirmed_first_at, tid, was_first_class,
    was_confirmed_first_class, was_best, whole)
SELECT t.message, t.recipient, o.first_at, o.last_at, o.confirmed_first_at, o.tid, o.first_class,
    o.confirmed_first_class, o.best, o.first_at < s.retained_from
FROM unnest($1::uuid[], $2::uuid[]) AS t (message, recipient)
CROSS JOIN LATERAL (
    SELECT *, opens.ctid AS tid FROM opens
    WHERE opens.message = t.message AND opens.recipient = t.recipient
    LIMIT 1
) AS o
CROSS JOIN rollup_state AS s
