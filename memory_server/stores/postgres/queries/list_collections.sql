-- Read all active collections.
SELECT name, epoch, profile, dimension, tenant, filled FROM index_collections ORDER BY name;
