-- Of these tenants, read those whose memories a collection holds.
-- $1 profile, $2 the collection's tenant or empty, $3 tenants
SELECT t.tenant FROM unnest($3::text[]) AS t (tenant) WHERE {belongs};
