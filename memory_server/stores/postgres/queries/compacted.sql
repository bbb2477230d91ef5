-- Read up to which revision the changelog is no longer kept.
SELECT compacted FROM tenant_revisions WHERE tenant = $1;
