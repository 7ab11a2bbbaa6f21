-- The hits of one day of pairs in `touched` that are not completely in the chunk. Hits of a pending batch are in no
-- count yet.
-- {day}: the partition's name. {from}, {to}: its bounds.
SELECT h.at, h.seq, h.message, h.recipient, h.image, h.spool, h.class
FROM touched AS t
JOIN {day} AS h ON h.recipient = t.recipient AND h.message = t.message
WHERE NOT t.whole AND t.was_first_at < {to} AND t.was_last_at >= {from}
    AND h.at BETWEEN t.was_first_at AND t.was_last_at
    AND NOT EXISTS (
        SELECT 1 FROM batches b
        WHERE b.published IS NULL AND b.spool = h.spool AND h.seq >= b.first_seq AND h.seq < b.next_seq)
