-- What has expired and is not swept yet, by tenant: walks of the graph leave these out as a set.
-- oldest server: 1

CREATE INDEX memory_items_expired ON memory_items (tenant, expires_at) INCLUDE (memory_id)
    WHERE expires_at IS NOT NULL AND NOT deleted;
