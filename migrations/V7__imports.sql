-- What was brought from other programs, and how far, so that the same import can be run again and takes only what is new.

-- Batches of an import hold hits of long ago: a reader of events that met them as news would tell years of old opens anew.
ALTER TABLE batches ADD COLUMN imported bool NOT NULL DEFAULT false;
COMMENT ON COLUMN batches.imported IS 'Brought by an import, not served by pixeld: counted like all others, and no event; who reads events leaves these out.';

CREATE TABLE imports (
    spool     int PRIMARY KEY,
    source    text NOT NULL,
    pictures  uuid[] NOT NULL,
    last_id   bigint,
    last_at   timestamptz,
    late_ids  bigint[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE imports IS 'One row a database that hits were imported from: its spool in spool_marks, and how far its rows are taken.';
COMMENT ON COLUMN imports.pictures IS 'The ids of its pictures, by which it is known again, wherever it lies by then.';
COMMENT ON COLUMN imports.last_id IS 'The highest row that was looked at, and last_at its time there; it moves in the transaction that brings the hits.';
COMMENT ON COLUMN imports.late_ids IS 'Ids a little below last_id that had no row yet: one that was being written meanwhile is committed later.';
