-- Hits of images that the database does not have although a node answered with them: a database that was restored from before
-- their upload, or another one. The node keeps them on its disk; which they are stands here, in the transaction that passes over
-- them and in the one that brings them in, so that they come in once, to whatever moment a database is restored.
CREATE TABLE orphans (
    spool      int NOT NULL,
    image      uuid NOT NULL,
    first_seq  bigint NOT NULL CHECK (first_seq >= 0),
    next_seq   bigint NOT NULL CHECK (next_seq > first_seq),
    noted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (spool, image, first_seq)
);
COMMENT ON TABLE orphans IS 'Hits that wait on a node''s disk because their image is not here: all of this image and spool with numbers from first_seq up to next_seq.';
