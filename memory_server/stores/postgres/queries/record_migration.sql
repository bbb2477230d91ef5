-- Note a migration as applied.
INSERT INTO schema_migrations (name, phase, number, oldest_server, checksum)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = clock_timestamp();
