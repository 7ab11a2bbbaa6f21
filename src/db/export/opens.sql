-- The opens of a recipient as JSON, one per row, with classes in words.
-- $1: the recipient.
SELECT row_to_json(r)::text
FROM (
    SELECT o.message, m.name AS message_name, o.image, o.first_at, o.last_at, o.confirmed_first_at, o.hits,
        o.confirmed_hits,
        COALESCE(b.name, 'class ' || o.best) AS best_class,
        COALESCE(f.name, 'class ' || o.first_class) AS first_class
    FROM opens o
    LEFT JOIN messages m ON m.id = o.message
    LEFT JOIN words b ON b.kind = 'class' AND b.number = o.best
    LEFT JOIN words f ON f.kind = 'class' AND f.number = o.first_class
    WHERE o.recipient = $1
    ORDER BY o.first_at, o.message
) AS r
