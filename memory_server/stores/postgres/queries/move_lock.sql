-- Wait until nobody is settling jobs in a collection, and hold it; no row when it is in another epoch by now.
-- $1 name, $2 epoch
SELECT name FROM index_collections WHERE name = $1 AND epoch = $2::bigint FOR UPDATE;
