-- The index that finds a namespace's actors without reading its rows.
-- oldest server: 1

CREATE INDEX memory_items_actor ON memory_items (tenant, namespace, actor) WHERE actor <> '' AND NOT deleted;
