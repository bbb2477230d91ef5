-- Whether a collection that has taken rows still is in this epoch; it may not be declared lost meanwhile.
-- $1 name, $2 epoch
SELECT epoch FROM index_collections WHERE name = $1 AND epoch = $2::bigint AND filled FOR SHARE;
