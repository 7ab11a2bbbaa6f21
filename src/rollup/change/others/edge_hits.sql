-- The first hit of each first slot of a day, and the last hit of each last one, of the messages in `edges`. Most slots
-- end before the hour is over; a hit found after its slot is not the first one, and is not searched for either, since
-- no later slot has one. Hits of a pending batch are in no count yet.
-- {day}: the partition's name. {from}, {to}: its bounds.
SELECT e.message,
    (
        SELECT min(h.at) FROM {day} h
        WHERE h.message = e.message AND h.at >= e.first_hour AND h.at < e.first_hour + interval '1 hour'
            AND NOT EXISTS (
                SELECT 1 FROM batches b
                WHERE b.published IS NULL AND b.spool = h.spool AND h.seq >= b.first_seq AND h.seq < b.next_seq)
    ) AS first_hit,
    NULL::timestamptz AS last_hit
FROM edges e
WHERE e.first_hour < {to} AND e.first_hour > {from} - interval '1 hour'
UNION ALL
SELECT e.message,
    NULL,
    (
        SELECT max(h.at) FROM {day} h
        WHERE h.message = e.message AND h.at >= e.last_hour AND h.at < e.last_hour + interval '1 hour'
            AND NOT EXISTS (
                SELECT 1 FROM batches b
                WHERE b.published IS NULL AND b.spool = h.spool AND h.seq >= b.first_seq AND h.seq < b.next_seq)
    )
FROM edges e
WHERE e.last_hour < {to} AND e.last_hour > {from} - interval '1 hour'
