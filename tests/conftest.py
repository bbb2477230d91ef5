"""Fixtures for every test."""

from tests.support.stack import office
from tests.support.stores import collection_prefix, fresh_database, milvus_uri, redis_url, stores

__all__ = ["collection_prefix", "fresh_database", "milvus_uri", "office", "redis_url", "stores"]
