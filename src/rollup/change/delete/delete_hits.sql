-- Deletes rows of one day that were found before, and keeps them in `work_hits`. Rows that were moved since are not
-- found; those of a pending batch are left.
-- $1, $2: the target's values. $3: the rows' ctids. {day}: the partition's name. {target}: the target's condition.
WITH gone AS (
    DELETE FROM {day} AS h
    WHERE h.ctid = ANY($3::text[]::tid[]) AND {target}
        AND NOT EXISTS (
            SELECT 1 FROM batches b
            WHERE b.published IS NULL AND b.spool = h.spool AND h.seq >= b.first_seq AND h.seq < b.next_seq)
    RETURNING at, seq, message, recipient, image, spool, class, rule, client, user_agent
)
INSERT INTO work_hits (at, seq, message, recipient, image, spool, class, rule, client, user_agent)
SELECT * FROM gone
