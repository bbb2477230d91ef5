"""The truth in Postgres: one module a port, SQL in ``queries/``, schema in ``migrations/``."""
