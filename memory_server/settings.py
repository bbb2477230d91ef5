"""The memory server's settings, read from the environment once.

``soma settings`` prints this table; ``docs/settings.md`` is generated from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class MemorySettings(BaseSettings):
    """Everything a memory server can be told; the names are the environment variables."""

    model_config = SettingsConfigDict(env_prefix="SOMA_", extra="ignore", frozen=True)

    postgres_url: SecretStr = Field(description="Postgres as the application role, postgresql://…")
    postgres_admin_url: SecretStr | None = Field(
        None, description="Postgres as the owner; with it the server migrates its schema at start"
    )
    milvus_uri: str = Field("", description="Milvus address, http(s)://host:port; or give host and port")
    milvus_host: str = Field("", description="Milvus host, with SOMA_MILVUS_PORT, instead of a URI")
    milvus_port: int = Field(19530, ge=1, le=65535, description="Milvus port, used with the host")
    milvus_secure: bool = Field(False, description="Use TLS with SOMA_MILVUS_HOST")
    milvus_token: SecretStr = Field(SecretStr(""), description="Milvus token, user:password or API key")
    milvus_collection: str = Field(
        "soma_memories", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="Prefix of collection names"
    )
    redis_url: SecretStr = Field(SecretStr(""), description="Redis address; empty runs without a cache")
    vector_backend: Literal["milvus"] = Field("milvus", description="The vector index; only milvus")

    memory_address: str = Field("127.0.0.1:9595", description="Where the memory server listens, host:port")
    memory_ops_address: str = Field("", description="Where metrics and liveness are served; empty is off")
    otel_endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where spans go by OTLP; empty is off. OpenTelemetry's other variables hold too",
    )
    memory_channelz_address: str = Field(
        "", description="Where channelz is served, by gRPC without TLS, host:port; empty is off"
    )
    memory_reflection: bool = Field(True, description="Serve gRPC reflection")
    memory_tls_cert: Path | None = Field(None, description="PEM certificate chain; with it TLS is on")
    memory_tls_key: Path | None = Field(None, description="PEM private key of the certificate")
    memory_max_calls: int = Field(1_000, ge=1, le=100_000, description="Calls in flight a server")
    memory_max_calls_per_tenant: int = Field(256, ge=1, le=100_000, description="Calls in flight a tenant")
    bootstrap_key_file: Path | None = Field(
        None, description="JSON list of keys to register at start (development key, brain credential)"
    )

    jwt_keys: Path | None = Field(
        None, description="PEM public key or JWKS file of an identity provider; with it bearers may be JWTs"
    )
    jwt_audience: str = Field("soma", description="The audience (aud) a JWT must name")
    jwt_issuer: str = Field("", description="The issuer (iss) a JWT must name; needed with SOMA_JWT_KEYS")

    embedder: Literal["local", "openai", "hashing"] = Field("local", description="What embeds texts")
    embedder_model: str = Field("", description="Model name of an OpenAI-compatible endpoint")
    embedder_base_url: str = Field("", description="Base URL of an OpenAI-compatible endpoint")
    embedder_api_key: SecretStr = Field(SecretStr(""), description="Key of an OpenAI-compatible endpoint")
    embedder_dimensions: int | None = Field(None, ge=1, le=4_096, description="Dimensions asked of the endpoint")
    embedder_sentences: bool = Field(
        False, description="Keep a vector a sentence too: twice the work of indexing, no measured gain in recall"
    )
    embedder_threads: int = Field(1, ge=1, le=64, description="Worker threads of the local model")
    previous_embedder: Literal["", "local", "openai", "hashing"] = Field(
        "", description="The embedder tenants are moved from by ReEmbed; empty when there is none"
    )
    previous_embedder_model: str = Field("", description="As SOMA_EMBEDDER_MODEL")
    previous_embedder_base_url: str = Field("", description="As SOMA_EMBEDDER_BASE_URL")
    previous_embedder_api_key: SecretStr = Field(SecretStr(""), description="As SOMA_EMBEDDER_API_KEY")
    previous_embedder_dimensions: int | None = Field(None, ge=1, le=4_096, description="As SOMA_EMBEDDER_DIMENSIONS")
    cache_dir: Path | None = Field(None, description="Where the built local model is kept")

    rerank_url: str = Field(
        "", description="Endpoint of a re-ranking model, POST {model, query, documents}; empty is off"
    )
    rerank_model: str = Field("", description="Model name for the re-ranking endpoint")
    rerank_api_key: SecretStr = Field(SecretStr(""), description="Key for the re-ranking endpoint")
    rerank_onnx: Path | None = Field(
        None, description="Folder with model.onnx and tokenizer.json of a cross-encoder; excludes the endpoint"
    )

    scorers: dict[str, str] = Field(
        default_factory=dict,
        description="Strategies of ranking that tenants may choose, JSON: name to 'module:Class'",
    )

    pool_interactive: int = Field(12, ge=1, le=200, description="Postgres connections for calls")
    pool_indexing: int = Field(3, ge=1, le=50, description="Postgres connections of the indexer")
    recall_rows_mb: int = Field(
        160,
        ge=1,
        le=65_536,
        description="Memory for rows that recall read lately, so that Postgres need not send them again",
    )
    pool_bulk: int = Field(3, ge=1, le=50, description="Postgres connections for import and export")

    index_batch: int = Field(128, ge=1, le=1_000, description="Memories the indexer takes at a time")
    index_lease_s: float = Field(60.0, ge=1, le=3_600, description="Seconds before another worker may take over")
    index_poll_s: float = Field(0.2, ge=0.01, le=60, description="Seconds between looks for new index jobs")
    indexer: bool = Field(True, description="Run the indexer in this process")
    reconcile_every_s: float = Field(
        300.0, ge=0, le=86_400, description="Seconds between comparisons of the index with the truth; 0 makes none"
    )
    graph_budget_s: float = Field(
        0.1, ge=0.01, le=10, description="Seconds a graph call may walk beyond its first layer"
    )
    index_visible_s: float = Field(
        10.0, ge=0, le=600, description="Seconds until every search of the index sees a row; waited before a switch"
    )
    index_retire_s: float = Field(
        60.0, ge=0, le=3_600, description="Seconds an old collection stays after another has taken its place"
    )
    versions_kept: int = Field(20, ge=1, le=1_000, description="Versions of a memory kept for History")
    drain_s: float = Field(25.0, ge=0, le=600, description="Seconds calls may take to finish at shutdown")
    notice_s: float = Field(
        0.0, ge=0, le=600, description="Seconds before that in which health says NOT_SERVING, for balancers to notice"
    )
    connection_age_s: float = Field(
        0.0, ge=0, le=86_400, description="Seconds after which a connection is closed in good order; 0 is never"
    )

    @field_validator(
        "postgres_admin_url",
        "memory_tls_cert",
        "memory_tls_key",
        "bootstrap_key_file",
        "cache_dir",
        "rerank_onnx",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _complete(self) -> MemorySettings:
        if not self.milvus_uri and not self.milvus_host:
            raise ValueError("set SOMA_MILVUS_URI, or SOMA_MILVUS_HOST and SOMA_MILVUS_PORT")
        if self.milvus_uri and self.milvus_host:
            raise ValueError("SOMA_MILVUS_URI and SOMA_MILVUS_HOST are both set; keep one")
        if (self.memory_tls_cert is None) != (self.memory_tls_key is None):
            raise ValueError("SOMA_MEMORY_TLS_CERT and SOMA_MEMORY_TLS_KEY go together")
        if self.jwt_keys is not None and not self.jwt_issuer:
            raise ValueError("SOMA_JWT_KEYS needs SOMA_JWT_ISSUER")
        if self.rerank_url and self.rerank_onnx is not None:
            raise ValueError("SOMA_RERANK_URL and SOMA_RERANK_ONNX are both set; keep one")
        return self

    @property
    def milvus_address(self) -> str:
        """The Milvus URI, whichever way it was given."""
        if self.milvus_uri:
            return self.milvus_uri
        scheme = "https" if self.milvus_secure else "http"
        return f"{scheme}://{self.milvus_host}:{self.milvus_port}"
