-- The memories of a coordinate.
SELECT i.memory_id FROM memory_items i WHERE i.tenant = gate.tenant AND i.place_key = {place} AND NOT i.deleted
