-- The epoch of the collection that is searched; a newer one declared meanwhile makes more rows count as un-indexed.
-- Without a collection every row does.
searched AS MATERIALIZED (
    SELECT GREATEST(1, {asked}, (
        SELECT c.epoch FROM index_collections c
        WHERE c.profile = {profile} AND c.tenant IN ('', {tenant})
        ORDER BY c.tenant DESC LIMIT 1
    )) AS epoch
)
