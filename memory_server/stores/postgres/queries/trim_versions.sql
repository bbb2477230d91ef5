-- Delete versions of a memory beyond those that are kept.
DELETE FROM memory_versions WHERE tenant = $1 AND memory_id = $2::uuid AND version <= $3;
