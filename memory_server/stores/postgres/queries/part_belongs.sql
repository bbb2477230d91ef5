-- Whether the memories of a tenant t are kept in the collection of profile {profile} and tenant {owner} (empty: shared).
COALESCE((SELECT p.profile = {profile} FROM embedding_profiles p WHERE p.tenant = t.tenant), false)
AND CASE WHEN {owner} = ''
    THEN NOT COALESCE((SELECT d.dedicated FROM tenants d WHERE d.tenant = t.tenant), false)
         AND NOT EXISTS (SELECT FROM index_collections c WHERE c.profile = {profile} AND c.tenant = t.tenant)
    ELSE t.tenant = {owner} END
