-- Copies the hits of some batches into `work_hits`, with the batch's index as `n`.
-- $1: the batches' ids. $2, $3: the first and last time of all of them, so that the other days' partitions cost
-- nothing.
--
-- Each batch is one look-up in btree(at); `OFFSET 0` keeps the planner from reading whole days for many batches at
-- once.
INSERT INTO work_hits (at, seq, message, recipient, image, spool, class, rule, client, n)
SELECT h.at, h.seq, h.message, h.recipient, h.image, h.spool, h.class, h.rule, h.client, b.n
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM batches WHERE id = ANY($1)) AS b
CROSS JOIN LATERAL (
    SELECT * FROM hits
    WHERE at BETWEEN b.min_at AND b.max_at AND spool = b.spool AND seq >= b.first_seq AND seq < b.next_seq
        AND at BETWEEN $2 AND $3
    OFFSET 0
) AS h
