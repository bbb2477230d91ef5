-- Try to read rows with no tenant set; true would mean that row-level security does not hold.
SELECT EXISTS (SELECT FROM memory_items) OR EXISTS (SELECT FROM memory_vectors) OR EXISTS (SELECT FROM links);
