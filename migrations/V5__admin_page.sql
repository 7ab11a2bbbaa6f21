-- What the admin page asks for beyond V3.

-- One recipient's page, and erasing them.
CREATE INDEX opens_recipient ON opens (recipient, message);

-- The list of messages, the latest first, page by page.
CREATE INDEX messages_last_at ON messages (coalesce(last_at, created_at) DESC, id DESC);

ALTER TABLE users ADD COLUMN zone text NOT NULL DEFAULT 'UTC' CHECK (char_length(zone) BETWEEN 1 AND 64);
COMMENT ON COLUMN users.zone IS 'The time zone that pages show times in, by its IANA name.';

COMMENT ON TABLE audit IS 'Who erased, exported, opted out, or changed users or messages, and when; the actor is a user''s name, or "command line".';

-- The page of images, newest first.
CREATE INDEX images_created_at ON images (created_at DESC, id DESC);

-- Receipts of deletions, among all the opt-outs and edits that the audit fills with.
CREATE INDEX audit_deletions ON audit (id)
    WHERE action IN ('began to delete hits', 'deleted hits', 'deleting hits failed');
