-- Enter a collection, unless somebody else just did.
-- $1 name, $2 profile, $3 tenant or empty, $4 dimension
INSERT INTO index_collections (name, profile, tenant, dimension, epoch)
VALUES ($1, $2, $3, $4, nextval('index_epochs'))
ON CONFLICT DO NOTHING;
