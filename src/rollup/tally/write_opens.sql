-- Writes `pairs` into opens: new, changed and deleted ones.
INSERT INTO opens (message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq,
    first_spool, best, first_class, confirmed_first_class)
SELECT message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq,
    first_spool, best, first_class, confirmed_first_class
FROM pairs
WHERE tid IS NULL;

UPDATE opens o
SET image = p.image, first_at = p.first_at, last_at = p.last_at, confirmed_first_at = p.confirmed_first_at,
    hits = p.hits, confirmed_hits = p.confirmed_hits, first_seq = p.first_seq, first_spool = p.first_spool,
    best = p.best, first_class = p.first_class, confirmed_first_class = p.confirmed_first_class
FROM pairs p
WHERE o.ctid = p.tid AND p.first_at IS NOT NULL;

DELETE FROM opens o USING pairs p WHERE o.ctid = p.tid AND p.first_at IS NULL;
