-- The hits in `work_hits` with what is needed to judge them, in the order of `n`.
SELECT w.at, w.user_agent, u.user_agent, COALESCE(w.sent_at, m.sent_at), w.network, w.prefetch, w.message,
    w.recipient, w.image, w.class, w.rule, w.client, w.n, w.spool, w.seq
FROM work_hits w
LEFT JOIN user_agents u ON u.id = w.user_agent
LEFT JOIN messages m ON m.id = w.message
ORDER BY w.n
