-- Computes the opens of `work_hits` and combines them with the existing ones, into `pairs`.
--
-- `LIMIT 1` makes it one look-up in the key of opens for each pair, in the key's order.
INSERT INTO pairs
SELECT a.message, a.recipient,
    CASE WHEN earlier THEN a.image ELSE o.image END,
    LEAST(o.first_at, a.first_at),
    GREATEST(o.last_at, a.last_at),
    LEAST(o.confirmed_first_at, a.confirmed_first_at),
    COALESCE(o.hits, 0) + a.hits,
    COALESCE(o.confirmed_hits, 0) + a.confirmed_hits,
    CASE WHEN earlier THEN a.first_seq ELSE o.first_seq END,
    o.first_at,
    o.confirmed_first_at,
    CASE WHEN earlier THEN a.first_spool ELSE o.first_spool END,
    o.tid,
    class_of_rank(LEAST(COALESCE(class_rank(o.best), {rank of bot}::smallint), a.rank)),
    CASE WHEN earlier THEN a.first_class ELSE o.first_class END,
    CASE
        WHEN o.confirmed_first_at < a.confirmed_first_at OR a.confirmed_first_at IS NULL THEN o.confirmed_first_class
        WHEN a.confirmed_first_at < o.confirmed_first_at OR o.confirmed_first_at IS NULL THEN a.confirmed_first_class
        ELSE LEAST(o.confirmed_first_class, a.confirmed_first_class)
    END,
    o.best,
    o.first_class,
    o.confirmed_first_class
FROM ({opens of work_hits}) AS a
LEFT JOIN LATERAL (
    SELECT *, opens.ctid AS tid FROM opens
    WHERE opens.message = a.message AND opens.recipient = a.recipient
    LIMIT 1
) AS o ON true
CROSS JOIN LATERAL (
    SELECT o.first_at IS NULL
        OR (a.first_at, a.first_spool, a.first_seq) < (o.first_at, o.first_spool, o.first_seq) AS earlier
) AS e
