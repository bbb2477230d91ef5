-- Make the table of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
    name           text PRIMARY KEY,
    phase          text NOT NULL,
    number         int NOT NULL,
    oldest_server  int NOT NULL,
    checksum       bytea NOT NULL,
    applied_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
