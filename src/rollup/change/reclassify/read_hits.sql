-- Copies the next hits of one day into `work_hits`, numbered as `n`: up to the earliest pending hit, since hits that
-- came after the last check of batches belong to the next chunk.
-- $1, $2, $3: begin after the hit with this time, spool and number; without a spool, at this time. $4: maximum hits.
-- {day}: the partition's name.
INSERT INTO work_hits (at, seq, message, recipient, image, spool, class, rule, client, n, tid, network, prefetch,
    user_agent, sent_at)
SELECT at, seq, message, recipient, image, spool, class, rule, client, row_number() OVER (), tid, network, prefetch,
    user_agent, sent_at
FROM (
    SELECT *, ctid AS tid FROM {day}
    WHERE at >= $1 AND ($2::int IS NULL OR (at, spool, seq) > ($1, $2, $3))
        AND at < COALESCE(
            (SELECT min(min_at) FROM batches WHERE published IS NULL AND loaded > 0), 'infinity')
    ORDER BY at, spool, seq
    LIMIT $4
) AS h
