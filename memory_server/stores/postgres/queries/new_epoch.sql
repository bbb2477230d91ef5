-- Declare a collection lost; no row when somebody else just did.
-- $1 name, $2 the epoch that is lost
UPDATE index_collections c SET epoch = nextval('index_epochs'), filled = false, requeue_from = ''
WHERE c.name = $1 AND c.epoch = $2::bigint
RETURNING c.name, c.epoch, c.profile, c.dimension, c.tenant, c.filled;
