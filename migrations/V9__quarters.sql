-- Hits are counted by quarter of an hour, so that days of every zone begin where one does; until then by hour. What is counted already
-- stays as it is. Where hits are already, or may come from a node of the former program, that begins in a day or two: until then
-- both programs count alike.

CREATE TABLE counting (
    one            bool PRIMARY KEY DEFAULT true CHECK (one),
    quarters_from  timestamptz NOT NULL
);
COMMENT ON TABLE counting IS 'One row, which never changes: how the columns "hour" of counts are meant.';
COMMENT ON COLUMN counting.quarters_from IS 'Hits from this time on are counted under the beginning of their quarter of an hour, earlier ones under that of their hour (UTC).';
INSERT INTO counting (quarters_from)
SELECT CASE WHEN EXISTS (SELECT FROM batches) OR EXISTS (SELECT FROM images)
    THEN date_bin('24 hours', now(), '2000-01-01 00:00:00+00') + interval '48 hours'
    ELSE '1970-01-01 00:00:00+00' END;

COMMENT ON TABLE message_hours IS 'Hits of a message in a quarter of an hour (see counting) by class, and how many opens had their first (confirmed) hit among them.';
COMMENT ON TABLE image_hours IS 'Hits of an image in a quarter of an hour (see counting).';
