-- Reads the database's settings, this role's rights there, and the first of pixeld's tables that belongs to another
-- role.
--
-- Names are quoted for SQL. If no schema of the search path may be used, `public` is meant.
WITH place AS (
    SELECT coalesce(current_schema(), 'public')::text AS schema
), ours AS (
    SELECT c.oid, c.relowner
    FROM place
    JOIN pg_namespace n ON n.nspname = place.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'S')
    WHERE c.relname IN ('refinery_schema_history', 'hits', 'hits_readable', 'suppressions_change')
        OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('hits'))
    ORDER BY c.relname
)
SELECT current_database()::text, current_setting('server_encoding'),
    pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
    quote_ident(current_user), quote_ident(current_database()), quote_ident(schema),
    has_database_privilege(current_database(), 'TEMP'),
    EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = schema),
    coalesce(
        (
            SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')
            FROM pg_namespace WHERE nspname = schema
        ),
        false),
    (SELECT oid::regclass::text FROM ours WHERE NOT pg_has_role(relowner, 'USAGE') LIMIT 1),
    (SELECT relowner::regrole::text FROM ours WHERE NOT pg_has_role(relowner, 'USAGE') LIMIT 1)
FROM place
