"""The brain server's settings, read from the environment once.

``soma settings`` prints this table; ``docs/settings.md`` is generated from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class BrainSettings(BaseSettings):
    """Everything a brain server can be told; the names are the environment variables."""

    model_config = SettingsConfigDict(env_prefix="SOMA_", extra="ignore", frozen=True)

    brain_address: str = Field("127.0.0.1:9696", description="Where the brain listens, host:port")
    brain_ops_address: str = Field("", description="Where metrics and liveness are served; empty is off")
    otel_endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where spans go by OTLP; empty is off. OpenTelemetry's other variables hold too",
    )
    brain_channelz_address: str = Field(
        "", description="Where channelz is served, by gRPC without TLS, host:port; empty is off"
    )
    brain_reflection: bool = Field(True, description="Serve gRPC reflection")
    brain_tls_cert: Path | None = Field(None, description="PEM certificate chain; with it TLS is on")
    brain_tls_key: Path | None = Field(None, description="PEM private key of the certificate")
    brain_id: str = Field("", description="Name of this brain; empty makes one and keeps it in the data directory")
    brain_memory_target: str = Field("127.0.0.1:9595", description="Where the memory server is, a gRPC target")
    brain_memory_ca: Path | None = Field(None, description="PEM roots for TLS to the memory server; empty is plaintext")
    brain_max_calls: int = Field(1_000, ge=1, le=100_000, description="Calls in flight a server")
    brain_max_calls_per_tenant: int = Field(256, ge=1, le=100_000, description="Calls in flight a tenant")
    data_dir: Path = Field(Path("soma-data"), description="Where the outbox and working memory file lives")
    outbox_key_file: Path | None = Field(
        None, description="Key file that encrypts the outbox; empty is beside the data directory"
    )
    service_credential_file: Path = Field(
        Path("soma-data/secrets/brain.key"), description="File with the brain's own key (scope act-as)"
    )
    tenants_file: Path | None = Field(None, description="conf/tenants.yaml: personas, and breaker thresholds")

    verdict_fresh_s: float = Field(5.0, ge=0, le=5, description="Seconds a verdict on a key is used unasked")
    verdict_outage_s: float = Field(86_400.0, ge=0, le=86_400, description="Seconds it is used while memory is away")

    wm_capacity: int = Field(128, ge=1, le=4_096, description="Working-memory items a session")
    wm_sessions: int = Field(10_000, ge=1, le=1_000_000, description="Sessions kept in memory")
    wm_bytes: int = Field(256 * 1024 * 1024, ge=1_048_576, description="Bytes of sessions kept in memory")

    summariser_base_url: str = Field("", description="OpenAI-compatible endpoint that shortens long entries; or none")
    summariser_model: str = Field("", description="Its model")
    summariser_api_key: SecretStr = Field(SecretStr(""), description="Its key")

    embedder: Literal["local", "openai", "hashing"] = Field("local", description="What embeds observations")
    embedder_model: str = Field("", description="Model name of an OpenAI-compatible endpoint")
    embedder_base_url: str = Field("", description="Base URL of an OpenAI-compatible endpoint")
    embedder_api_key: SecretStr = Field(SecretStr(""), description="Key of an OpenAI-compatible endpoint")
    embedder_dimensions: int | None = Field(None, ge=1, le=4_096, description="Dimensions asked of the endpoint")
    embedder_threads: int = Field(1, ge=1, le=64, description="Worker threads of the local model")
    cache_dir: Path | None = Field(None, description="Where the built local model is kept")
    drain_s: float = Field(25.0, ge=0, le=600, description="Seconds calls may take to finish at shutdown")
    notice_s: float = Field(
        0.0, ge=0, le=600, description="Seconds before that in which health says NOT_SERVING, for balancers to notice"
    )
    connection_age_s: float = Field(
        0.0, ge=0, le=86_400, description="Seconds after which a connection is closed in good order; 0 is never"
    )

    @field_validator(
        "brain_tls_cert",
        "brain_tls_key",
        "brain_memory_ca",
        "outbox_key_file",
        "tenants_file",
        "cache_dir",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _complete(self) -> BrainSettings:
        if (self.brain_tls_cert is None) != (self.brain_tls_key is None):
            raise ValueError("SOMA_BRAIN_TLS_CERT and SOMA_BRAIN_TLS_KEY go together")
        if bool(self.summariser_base_url) != bool(self.summariser_model):
            raise ValueError("SOMA_SUMMARISER_BASE_URL and SOMA_SUMMARISER_MODEL go together")
        return self
