"""Fixtures for every test."""

from tests.support.stack import office
from tests.support.stores import backing, collection_prefix, elsewhere, fresh_database, milvus_uri, redis_url, stores

__all__ = ["backing", "collection_prefix", "elsewhere", "fresh_database", "milvus_uri", "office", "redis_url", "stores"]
