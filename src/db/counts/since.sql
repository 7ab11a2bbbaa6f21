-- By class: opens, confirmed opens and hits since $1, the same since $2, and the same since $3, the earliest.
SELECT class,
    coalesce(sum(first_opens) FILTER (WHERE hour >= $1), 0)::bigint,
    coalesce(sum(first_confirmed_opens) FILTER (WHERE hour >= $1), 0)::bigint,
    coalesce(sum(hits) FILTER (WHERE hour >= $1), 0)::bigint,
    coalesce(sum(first_opens) FILTER (WHERE hour >= $2), 0)::bigint,
    coalesce(sum(first_confirmed_opens) FILTER (WHERE hour >= $2), 0)::bigint,
    coalesce(sum(hits) FILTER (WHERE hour >= $2), 0)::bigint,
    sum(first_opens)::bigint, sum(first_confirmed_opens)::bigint, sum(hits)::bigint
FROM site_hours
WHERE hour >= $3
GROUP BY class
