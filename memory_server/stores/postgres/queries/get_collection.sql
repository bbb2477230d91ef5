-- Read a collection by its name.
SELECT name, epoch, profile, dimension, tenant, filled FROM index_collections WHERE name = $1;
