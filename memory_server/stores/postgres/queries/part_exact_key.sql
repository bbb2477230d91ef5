-- The memory of a key.
SELECT i.memory_id FROM memory_items i
WHERE i.tenant = gate.tenant AND i.namespace = {namespace} AND i.key = {key} AND i.key <> '' AND NOT i.deleted
