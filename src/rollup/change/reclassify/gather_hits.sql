-- The hits in `work_hits` of opens in `touched` that are completely in the chunk, with their new class, into
-- `pair_hits`.
INSERT INTO pair_hits (at, seq, message, recipient, image, spool, class)
SELECT w.at, w.seq, w.message, w.recipient, w.image, w.spool, COALESCE(v.class, w.class)
FROM work_hits w
LEFT JOIN verdicts v USING (n)
JOIN touched t ON t.message = w.message AND t.recipient = w.recipient
WHERE t.whole
