-- Makes the partition of a day, unless it exists.
-- {name}: its name. {from}, {to}: its day and the next one. {lock}: the number of the lock for changes of partitions.
--
-- `CREATE TABLE (LIKE)` and `ATTACH`, since `CREATE … PARTITION OF` waits for open writes. The replica identity lets
-- rows be deleted if changes of all tables are published; without a publication it costs nothing.
BEGIN;
SELECT pg_advisory_xact_lock({lock});
DO $make$ BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_inherits WHERE inhparent = 'hits'::regclass AND inhrelid = to_regclass('{name}')
    ) THEN
        CREATE TABLE IF NOT EXISTS {name} (LIKE hits INCLUDING ALL);
        ALTER TABLE {name} REPLICA IDENTITY FULL;
        ALTER TABLE hits ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00');
    END IF;
END $make$;
COMMIT;
