"""Every error a user of Soma can see, as one tree.

    SomaError
    ├── MemoryServiceError                  the service understood, but cannot do it
    │   ├── NotFoundError                   MemoryNotFound, LinkNotFound, ImportNotFound, SessionNotFound,
    │   │                                   TenantNotFound, KeyNotFound, DeadLetterNotFound, SchemaNotFound,
    │   │                                   JobNotFound, BreakerNotFound
    │   ├── AlreadyExistsError              MemoryExists, KeyTaken, TenantExists
    │   ├── ConflictError                   VersionMismatch, WriteConflict, ImportLeaseLost
    │   ├── PreconditionError               ImportNotActive, TooManyRefused, EmbeddingProfileMismatch,
    │   │                                   FeatureDisabled
    │   ├── PositionError                   OffsetGap, RevisionCompacted
    │   ├── ExhaustedError                  RateLimited, QuotaExceeded, Overloaded, OutboxFull,
    │   │                                   WindowExceeded, WatcherTooSlow
    │   ├── UnavailableError                ComponentUnavailable, Draining
    │   ├── UnimplementedError
    │   └── InternalError
    ├── CircuitBreakerOpenError             a breaker refuses calls to a dependency
    ├── MemoryTimeoutError                  BudgetSpent
    ├── MemorySerializationError            FieldViolation, DimensionMismatch, SchemaViolation, PageTokenInvalid,
    │                                       CursorInvalid, RequestIdReused
    └── TenantIsolationError                who is calling, and for whom
        ├── AuthenticationError             CredentialsMissing, CredentialsInvalid, CredentialsExpired
        └── PermissionDeniedError           TenantForbidden, ScopeMissing, TenantSuspended

Leaf names end in ``Error``. A leaf's ``reason`` is the value that travels in ``google.rpc.ErrorInfo``, its ``code``
the status of the call, its docstring the default message: what happened and what the caller can do about it.
Words in braces in a docstring are filled from ``metadata``, so a program never has to parse a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar, NamedTuple, Self

DOMAIN = "soma.dev"
"""``ErrorInfo.domain`` of every error below."""


class Code(IntEnum):
    """The status codes of gRPC, by number, so that the domain needs no grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Violation(NamedTuple):
    """One wrong field: its path in the request (``memory.tags[3]``) and what is wrong with it."""

    field: str
    description: str


class SomaError(Exception):
    """Something went wrong in Soma."""

    code: Code = Code.INTERNAL
    reason: str = ""
    retry_after_s: float | None = None
    metadata_keys: ClassVar[tuple[str, ...]] = ()

    message: str
    metadata: dict[str, str]
    violations: tuple[Violation, ...]

    _by_reason: ClassVar[dict[str, type[SomaError]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in cls.__dict__:
            other = SomaError._by_reason.setdefault(cls.reason, cls)
            if other is not cls:
                raise TypeError(f"{cls.__name__} and {other.__name__} both claim the reason {cls.reason}")

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: float | None = None,
        violations: Iterable[Violation] = (),
        **metadata: str,
    ) -> None:
        self.metadata = metadata
        self.violations = tuple(Violation(*violation) for violation in violations)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.message = message if message is not None else self._default_message()
        super().__init__(self.message)

    def _default_message(self) -> str:
        text = " ".join((type(self).__doc__ or "").split())
        return re.sub(r"\{(\w+)\}", lambda word: self.metadata.get(word[1], f"(no {word[1]} given)"), text)


# --- MemoryServiceError ------------------------------------------------------------------------------------------


class MemoryServiceError(SomaError):
    """The memory service could not do what was asked."""


class NotFoundError(MemoryServiceError):
    """What was asked for does not exist in this tenant."""

    code = Code.NOT_FOUND


class MemoryNotFoundError(NotFoundError):
    """No such memory in this tenant and namespace; check the id or key, it may have been forgotten or have expired."""

    reason = "MEMORY_NOT_FOUND"
    metadata_keys = ("memory_id", "key", "namespace", "field")


class LinkNotFoundError(NotFoundError):
    """No such link in this tenant; list the memory's links to see which exist."""

    reason = "LINK_NOT_FOUND"
    metadata_keys = ("source_id", "target_id", "relation")


class ImportNotFoundError(NotFoundError):
    """No such import job in this tenant; create one with CreateImport, finished jobs are kept for a limited time."""

    reason = "IMPORT_NOT_FOUND"
    metadata_keys = ("import_id",)


class SessionNotFoundError(NotFoundError):
    """No such session in this tenant; open it with Observe."""

    reason = "SESSION_NOT_FOUND"
    metadata_keys = ("session_id",)


class TenantNotFoundError(NotFoundError):
    """No such tenant; create it with CreateTenant."""

    reason = "TENANT_NOT_FOUND"
    metadata_keys = ("tenant",)


class KeyNotFoundError(NotFoundError):
    """No such API key; list the tenant's keys to see which exist."""

    reason = "KEY_NOT_FOUND"
    metadata_keys = ("key_id",)


class DeadLetterNotFoundError(NotFoundError):
    """No such dead letter; list the dead letters to see which are left."""

    reason = "DEAD_LETTER_NOT_FOUND"
    metadata_keys = ("entry_id",)


class SchemaNotFoundError(NotFoundError):
    """No such schema type and version in this tenant; put the schema first."""

    reason = "SCHEMA_NOT_FOUND"
    metadata_keys = ("schema_type", "schema_version")


class JobNotFoundError(NotFoundError):
    """No such background job in this tenant; finished jobs are kept for a limited time."""

    reason = "JOB_NOT_FOUND"
    metadata_keys = ("job_id",)


class BreakerNotFoundError(NotFoundError):
    """No such breaker; list the breakers to see which exist."""

    reason = "BREAKER_NOT_FOUND"
    metadata_keys = ("breaker",)


class AlreadyExistsError(MemoryServiceError):
    """What was to be created is there already."""

    code = Code.ALREADY_EXISTS


class MemoryExistsError(AlreadyExistsError):
    """A memory with this id or key exists and if_absent was set; read it, or write without if_absent."""

    reason = "MEMORY_EXISTS"
    metadata_keys = ("memory_id",)


class KeyTakenError(AlreadyExistsError):
    """Another memory of this namespace holds this key; write to that memory or choose another key."""

    reason = "KEY_TAKEN"
    metadata_keys = ("key", "namespace", "memory_id")


class TenantExistsError(AlreadyExistsError):
    """A tenant of this name exists; use it or choose another name."""

    reason = "TENANT_EXISTS"
    metadata_keys = ("tenant",)


class ConflictError(MemoryServiceError):
    """Somebody else was faster."""

    code = Code.ABORTED


class VersionMismatchError(ConflictError):
    """The memory is at another version than if_match says; read it again and redo the change."""

    reason = "VERSION_MISMATCH"
    metadata_keys = ("memory_id", "expected", "actual")


class WriteConflictError(ConflictError):
    """Two writes met on the same rows; repeat the call with the same request_id."""

    reason = "WRITE_CONFLICT"
    retry_after_s = 0.05


class ImportLeaseLostError(ConflictError):
    """Another stream has taken over this import job; stop, only one importer at a time may write to a job."""

    reason = "IMPORT_LEASE_LOST"
    metadata_keys = ("import_id",)


class PreconditionError(MemoryServiceError):
    """The system is not in the state this call needs."""

    code = Code.FAILED_PRECONDITION


class ImportNotActiveError(PreconditionError):
    """The import job is {state} and takes no more records; create a new job."""

    reason = "IMPORT_NOT_ACTIVE"
    metadata_keys = ("import_id", "state")


class TooManyRefusedError(PreconditionError):
    """More records were refused than max_refused allows; see ListImportErrors, mend the source and start a new job."""

    reason = "TOO_MANY_REFUSED"
    metadata_keys = ("import_id", "refused", "max_refused")


class EmbeddingProfileMismatchError(PreconditionError):
    """The memories were embedded with {expected}, this server is set to {actual}; set the old model or re-embed."""

    reason = "EMBEDDING_PROFILE_MISMATCH"
    metadata_keys = ("expected", "actual")


class FeatureDisabledError(PreconditionError):
    """The feature {feature} is switched off on this server; ask its operator."""

    reason = "FEATURE_DISABLED"
    metadata_keys = ("feature",)


class PositionError(MemoryServiceError):
    """A stream was asked to go on from a place where it cannot."""

    code = Code.OUT_OF_RANGE


class OffsetGapError(PositionError):
    """The chunk's offset leaves a gap; go on sending from offset {expected_offset}."""

    reason = "OFFSET_GAP"
    metadata_keys = ("expected_offset",)


class RevisionCompactedError(PositionError):
    """Changes this old are gone, the oldest kept is {oldest}; export, then watch from the export's revision."""

    reason = "REVISION_COMPACTED"
    metadata_keys = ("oldest",)


class ExhaustedError(MemoryServiceError):
    """Too much was asked for at once."""

    code = Code.RESOURCE_EXHAUSTED
    retry_after_s = 1.0


class RateLimitedError(ExhaustedError):
    """This tenant calls more often than its rate allows; wait as long as told, then go on slower."""

    reason = "RATE_LIMITED"
    metadata_keys = ("limit",)


class QuotaExceededError(ExhaustedError):
    """The tenant's quota of {quota} is used up; forget memories or have the quota raised."""

    reason = "QUOTA_EXCEEDED"
    retry_after_s = 60.0
    metadata_keys = ("quota", "limit")


class OverloadedError(ExhaustedError):
    """Too many calls are running; wait as long as told and call again."""

    reason = "OVERLOADED"
    retry_after_s = 0.25
    metadata_keys = ("scope",)


class OutboxFullError(ExhaustedError):
    """The long-term memory is away and the outbox is full; nothing was taken, call again when told."""

    reason = "OUTBOX_FULL"
    retry_after_s = 5.0
    metadata_keys = ("limit",)


class WindowExceededError(ExhaustedError):
    """More was sent than the credit granted; wait for credit before the next chunk."""

    reason = "WINDOW_EXCEEDED"
    metadata_keys = ("credit",)


class WatcherTooSlowError(ExhaustedError):
    """The watcher read too slowly and was cut; watch again from the last revision received, nothing is lost."""

    reason = "WATCHER_TOO_SLOW"
    metadata_keys = ("through",)


class UnavailableError(MemoryServiceError):
    """The service cannot answer at the moment; call again."""

    code = Code.UNAVAILABLE
    retry_after_s = 1.0


class ComponentUnavailableError(UnavailableError):
    """The component {component} does not answer; call again after the delay given."""

    reason = "COMPONENT_UNAVAILABLE"
    metadata_keys = ("component",)


class DrainingError(UnavailableError):
    """This server is shutting down; call again, another one will answer."""

    reason = "DRAINING"
    retry_after_s = 0.1


class UnimplementedError(MemoryServiceError):
    """This server does not serve this call; see GetServerInfo for what it serves."""

    code = Code.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class InternalError(MemoryServiceError):
    """Something unforeseen happened inside the server; give the request id {request_id} to its operator."""

    code = Code.INTERNAL
    reason = "INTERNAL"
    metadata_keys = ("request_id",)


# --- CircuitBreakerOpenError ---------------------------------------------------------------------------------------


class CircuitBreakerOpenError(SomaError):
    """The breaker for {component} is open after repeated failures; call again after the delay given."""

    code = Code.UNAVAILABLE
    reason = "BREAKER_OPEN"
    retry_after_s = 1.0
    metadata_keys = ("component",)


# --- MemoryTimeoutError --------------------------------------------------------------------------------------------


class MemoryTimeoutError(SomaError):
    """The call took longer than it may."""

    code = Code.DEADLINE_EXCEEDED


class BudgetSpentError(MemoryTimeoutError):
    """The call's time was spent in {stage}; call again with a later deadline, a change may have been stored already."""

    reason = "BUDGET_SPENT"
    metadata_keys = ("stage",)


# --- MemorySerializationError --------------------------------------------------------------------------------------


class MemorySerializationError(SomaError):
    """The request cannot be read as what it should be; mend it before calling again."""

    code = Code.INVALID_ARGUMENT


class FieldViolationError(MemorySerializationError):
    """A field of the request is wrong; the violations name each one."""

    reason = "FIELD_VIOLATION"

    def _default_message(self) -> str:
        if not self.violations:
            return super()._default_message()
        first, rest = self.violations[0], len(self.violations) - 1
        more = f" (and {rest} more)" if rest else ""
        return f"{first.field}: {first.description}{more}" if first.field else f"{first.description}{more}"

    @classmethod
    def at(cls, field: str, description: str) -> Self:
        """The error for one wrong field."""
        return cls(violations=(Violation(field, description),))


class DimensionMismatchError(MemorySerializationError):
    """The embedding has {actual} dimensions, this tenant's have {expected}; embed with the tenant's model."""

    reason = "DIMENSION_MISMATCH"
    metadata_keys = ("expected", "actual", "model")


class SchemaViolationError(MemorySerializationError):
    """The payload does not match the schema {schema_type} version {schema_version}; the violations name each place."""

    reason = "SCHEMA_VIOLATION"
    metadata_keys = ("schema_type", "schema_version")


class PageTokenInvalidError(MemorySerializationError):
    """The page token is not from a call with these same fields; start again without one."""

    reason = "PAGE_TOKEN_INVALID"


class CursorInvalidError(MemorySerializationError):
    """The cursor is not from a call with these same fields; start again without one."""

    reason = "CURSOR_INVALID"


class RequestIdReusedError(MemorySerializationError):
    """This request_id was used for a different request; choose a new one, and repeat one only for the same request."""

    reason = "REQUEST_ID_REUSED"
    metadata_keys = ("request_id",)


# --- TenantIsolationError ------------------------------------------------------------------------------------------


class TenantIsolationError(SomaError):
    """The caller may not do this in this tenant."""

    code = Code.PERMISSION_DENIED


class AuthenticationError(TenantIsolationError):
    """It is not known who calls."""

    code = Code.UNAUTHENTICATED


class CredentialsMissingError(AuthenticationError):
    """No credentials: send the metadata 'authorization: Bearer <API key or JWT>'."""

    reason = "CREDENTIALS_MISSING"


class CredentialsInvalidError(AuthenticationError):
    """The credentials are not known here; check the key, it may have been revoked."""

    reason = "CREDENTIALS_INVALID"


class CredentialsExpiredError(AuthenticationError):
    """The credentials have expired; get new ones."""

    reason = "CREDENTIALS_EXPIRED"


class PermissionDeniedError(TenantIsolationError):
    """It is known who calls, and that they may not."""


class TenantForbiddenError(PermissionDeniedError):
    """These credentials may not act for the tenant asked for; name one of their own in 'soma-tenant'."""

    reason = "TENANT_FORBIDDEN"


class ScopeMissingError(PermissionDeniedError):
    """These credentials lack the scope {scope}; use a key that has it."""

    reason = "SCOPE_MISSING"
    metadata_keys = ("scope",)


class TenantSuspendedError(PermissionDeniedError):
    """This tenant is suspended; its operator can resume it."""

    reason = "TENANT_SUSPENDED"


# --- Finding a class, building an error from what came over the wire ------------------------------------------------

_FAMILIES: Mapping[Code, type[SomaError]] = {
    Code.INVALID_ARGUMENT: MemorySerializationError,
    Code.DEADLINE_EXCEEDED: MemoryTimeoutError,
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: AlreadyExistsError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.RESOURCE_EXHAUSTED: ExhaustedError,
    Code.FAILED_PRECONDITION: PreconditionError,
    Code.ABORTED: ConflictError,
    Code.OUT_OF_RANGE: PositionError,
    Code.UNIMPLEMENTED: UnimplementedError,
    Code.INTERNAL: InternalError,
    Code.UNAVAILABLE: UnavailableError,
    Code.UNAUTHENTICATED: AuthenticationError,
}


def reasons() -> dict[str, type[SomaError]]:
    """Every reason and its class, in the order of this module."""
    return dict(SomaError._by_reason)


def from_reason(reason: str) -> type[SomaError] | None:
    """The class of a reason, or None for one this version does not know."""
    return SomaError._by_reason.get(reason)


def rebuilt(
    code: Code,
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
    violations: Iterable[Violation] = (),
) -> SomaError:
    """The error that another process raised: by reason, else (an unknown reason) the family of its code."""
    cls = from_reason(reason) or _FAMILIES.get(code, MemoryServiceError)
    error = cls(message, violations=violations)
    # Assigned rather than passed on: the keys are the other side's and need not be valid keyword arguments.
    error.metadata = dict(metadata or {})
    error.code, error.reason, error.retry_after_s = code, reason, retry_after_s
    return error


@contextmanager
def field_path(prefix: str) -> Iterator[None]:
    """Put ``prefix`` before the field paths of any violations raised inside: ``with field_path("memory"): …``."""
    try:
        yield
    except MemorySerializationError as error:
        if not error.violations:
            raise
        default = error.message == error._default_message()
        error.violations = tuple(prefixed(prefix, error.violations))
        if default:
            error.message = error._default_message()
            error.args = (error.message,)
        raise


def prefixed(prefix: str, violations: Iterable[Violation]) -> Iterator[Violation]:
    """The violations with ``prefix`` put before their paths; an index such as ``[3]`` takes no dot before it."""
    for field, description in violations:
        if not field or not prefix:
            yield Violation(prefix + field, description)
        else:
            yield Violation(f"{prefix}{field}" if field.startswith("[") else f"{prefix}.{field}", description)
