-- The definition of opens: one row for each message and recipient, computed from the hits of the table {hits} that have
-- both.
--
-- The hits are numbered once in their order (they are nearly sorted already), so that each pair's earliest is one more
-- hash aggregate and not a sort by four columns.
WITH h AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY at, spool, seq) AS n, message, recipient, at, seq, image, spool, class
    FROM {hits}
    WHERE message <> '00000000-0000-0000-0000-000000000000'::uuid
        AND recipient <> '00000000-0000-0000-0000-000000000000'::uuid
), a AS (
    SELECT message, recipient, min(n) AS n, max(at) AS last_at, count(*) AS hits,
        count(*) FILTER (WHERE class IN ({confirmed})) AS confirmed_hits,
        min(at) FILTER (WHERE class = {human}) AS human_at,
        min(at) FILTER (WHERE class = {proxied}) AS proxied_at,
        min(COALESCE(class_rank(class), {rank of unknown}::smallint)) AS rank
    FROM h
    GROUP BY message, recipient
)
SELECT a.message, a.recipient, h.image, h.at AS first_at, a.last_at,
    LEAST(human_at, proxied_at) AS confirmed_first_at, hits, confirmed_hits,
    h.seq AS first_seq, h.spool AS first_spool, rank, h.class AS first_class,
    (CASE
        WHEN human_at <= COALESCE(proxied_at, 'infinity') THEN {human}
        WHEN confirmed_hits > 0 THEN {proxied}
    END)::smallint AS confirmed_first_class
FROM a JOIN h ON h.n = a.n
ORDER BY a.message, a.recipient
