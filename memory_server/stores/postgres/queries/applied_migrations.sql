-- Read which migrations a database has.
SELECT name, phase, number, oldest_server, checksum FROM schema_migrations ORDER BY name;
