-- Computes the opens of `touched` again from `pair_hits`, into `pairs`.
INSERT INTO pairs
SELECT t.message, t.recipient, r.image, r.first_at, r.last_at, r.confirmed_first_at, r.hits, r.confirmed_hits,
    r.first_seq, t.was_first_at, t.was_confirmed_first_at, r.first_spool, t.tid, class_of_rank(r.rank), r.first_class,
    r.confirmed_first_class, t.was_best, t.was_first_class, t.was_confirmed_first_class
FROM touched AS t
LEFT JOIN ({opens of pair_hits}) AS r ON r.message = t.message AND r.recipient = t.recipient
