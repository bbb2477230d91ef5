-- Memories of one bucket b.
m.tenant = b.tenant AND m.memory_id >= COALESCE(NULLIF(b.above, ''), '00000000-0000-0000-0000-000000000000')::uuid
AND m.memory_id::text <> b.above AND m.memory_id <= b.upto
