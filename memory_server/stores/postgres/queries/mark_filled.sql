-- Note that a collection has taken rows, and answer its epoch; the row is locked against being declared lost.
-- $1 name, $2 epoch
UPDATE index_collections SET filled = true WHERE name = $1 AND epoch = $2::bigint RETURNING epoch;
