-- Records what a node has deleted from its disk for some erasures, and that it is done with them. A node that began
-- after an erasure and had no hits of it gives no receipt.
-- $1: the node. $2: its name. $3: the erasures. $4, $5, $6: segments, hits and files of each.
WITH noted AS (
    INSERT INTO erasure_nodes AS t (erasure, node, name, segments, hits, files)
    SELECT d.erasure, $1, $2, d.segments, d.hits, d.files
    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS d (erasure, segments, hits, files)
    JOIN erasures e ON e.id = d.erasure
    JOIN nodes n ON n.node = $1
    WHERE d.segments + d.files > 0 OR n.created_at <= e.requested_at
    ON CONFLICT (erasure, node) DO UPDATE
    SET name = excluded.name, done_at = excluded.done_at,
        segments = t.segments + excluded.segments, hits = t.hits + excluded.hits, files = t.files + excluded.files
)
UPDATE nodes
SET seen_at = clock_timestamp(),
    erased_to = GREATEST(erased_to, (SELECT max(id) FROM unnest($3::bigint[]) AS id))
WHERE node = $1
