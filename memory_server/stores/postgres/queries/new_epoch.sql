-- Declare a collection lost, unless somebody else just did, and answer how it is now.
-- $1 name, $2 the epoch that is lost
WITH lost AS (
    UPDATE index_collections c SET epoch = nextval('index_epochs'), filled = false, requeue_from = ''
    WHERE c.name = $1 AND c.epoch = $2::bigint
    RETURNING c.name, c.epoch, c.profile, c.dimension, c.tenant, c.filled
)
SELECT * FROM lost
UNION ALL
SELECT c.name, c.epoch, c.profile, c.dimension, c.tenant, c.filled
FROM index_collections c WHERE c.name = $1 AND NOT EXISTS (SELECT FROM lost);
