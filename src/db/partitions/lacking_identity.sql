-- Those of some tables, and `hits` itself, that have no replica identity and need one because changes of tables are
-- published. Changes that are published as those of `hits` need the identity of `hits`, too: without it a subscriber
-- gets rows that it cannot find.
-- $1: the tables' names.
WITH published AS (
    SELECT bool_or(pubviaroot) AS as_root FROM pg_publication WHERE pubupdate OR pubdelete
)
SELECT c.oid::regclass::text
FROM published
CROSS JOIN pg_class c
WHERE (c.oid IN (SELECT name::regclass FROM unnest($1::text[]) AS day (name)) AND as_root IS NOT NULL
        OR c.oid = 'hits'::regclass AND as_root)
    AND CASE c.relreplident
        WHEN 'f' THEN false
        WHEN 'n' THEN true
        WHEN 'd' THEN NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = c.oid AND indisprimary)
        ELSE NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = c.oid AND indisreplident)
    END
