-- Put a collection in the place of another; no row when that one was lost meanwhile. What the new one lacks is queued.
-- $1 name and $2 epoch of the one, $3 name and $4 epoch of the other
UPDATE index_collections SET name = $3, epoch = $4::bigint, filled = true, requeue_from = ''
WHERE name = $1 AND epoch = $2::bigint RETURNING name;
