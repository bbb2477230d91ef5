"""Whether a history and the truth it left agree: nothing lost, doubled, stale or out of order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.adversity.torture.history import Call, History, Kind
from tests.adversity.torture.linearizability import NEVER, Read, Write, anomalies
from tests.adversity.torture.truth import Truth

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """One question to a run, whether it passed, and what was counted."""

    name: str
    passed: bool
    told: str

    @staticmethod
    def none(name: str, offenders: Sequence[object], of: str) -> Verdict:
        """Passed if there are no offenders; ``of`` says among what."""
        told = f"{len(offenders)} of {of}"
        if offenders:
            told += ": " + "; ".join(str(one) for one in offenders[:_SHOWN])
        return Verdict(name, not offenders, told)


def verdicts_of(history: History, truth: Truth, final: dict[tuple[str, str], str | None]) -> list[Verdict]:
    """Every question that history and truth answer; ``final`` is what the API answers for each memory in the end."""
    writes = [call for call in history.calls if call.kind is not Kind.READ]
    acknowledged = [call for call in writes if call.acknowledged]
    lost = [call.request_id for call in acknowledged if call.request_id not in truth.answered]
    foreign = [call.request_id for call in writes if _is_of_another(call, truth)]
    return [
        Verdict.none("nothing acknowledged is lost", lost, f"{len(acknowledged)} acknowledged writes"),
        Verdict.none("no request was carried out twice", _doubled(writes, truth), f"{len(writes)} requests"),
        Verdict.none("no request became another tenant's", foreign, f"{len(writes)} requests"),
        Verdict.none("revisions have no gaps", _gaps(truth), f"{len(truth.revisions)} tenants"),
        Verdict.none("versions have no gaps", _version_gaps(truth), f"{len(truth.versions)} memories"),
        Verdict.none("histories are linearizable", _anomalies(history.calls, truth), _registers(history.calls)),
        Verdict.none("the last write is what is read", _not_last(writes, truth, final), f"{len(final)} memories"),
        Verdict.none("every answer was right in itself", history.violations, _answers(history)),
    ]


def _is_of_another(call: Call, truth: Truth) -> bool:
    answered = truth.answered.get(call.request_id)
    return answered is not None and answered.tenant != call.tenant


def _doubled(writes: Iterable[Call], truth: Truth) -> list[str]:
    """Requests with two records, and tenants whose revisions number more than the requests that changed something."""
    changed: Counter[str] = Counter()
    for call in writes:
        answered = truth.answered.get(call.request_id)
        changed[call.tenant] += answered is not None and answered.changed
    more = [
        f"{tenant} has {truth.written.get(tenant, 0)} revisions for {count} requests"
        for tenant, count in changed.items()
        if truth.written.get(tenant, 0) > count
    ]
    return [*truth.doubled, *more]


def _gaps(truth: Truth) -> list[str]:
    return [
        tenant
        for tenant, last in truth.revisions.items()
        if sorted(set(truth.changes.get(tenant, ()))) != list(range(1, last + 1))
    ]


def _version_gaps(truth: Truth) -> list[str]:
    return [
        f"{key}: {numbers}"
        for key, numbers in truth.versions.items()
        if numbers != list(range(numbers[0], numbers[0] + len(numbers)))
    ]


def registers(calls: Iterable[Call]) -> dict[tuple[str, str], list[Call]]:
    """The calls on memories, by tenant and key."""
    found: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind is not Kind.LINK:
            found[call.tenant, call.key].append(call)
    return found


def _registers(calls: Sequence[Call]) -> str:
    return f"{len(calls)} calls on {len(registers(calls))} memories"


def _anomalies(calls: Iterable[Call], truth: Truth) -> list[str]:
    found = []
    for (tenant, key), register in registers(calls).items():
        for anomaly in anomalies(*_judged(register, truth)):
            call = anomaly.call
            found.append(f"{tenant} {key} {call.name} from {call.began:.3f} to {call.ended:.3f}: {anomaly.why}")
    return found


def _judged(register: Iterable[Call], truth: Truth) -> tuple[list[Write], list[Read]]:
    """The calls of one memory as the checker wants them: writes at their revisions, reads at those they saw."""
    writes: list[Write] = []
    places: dict[str, int] = {}
    reads: list[Call] = []
    for call in register:
        if call.kind is Kind.READ:
            reads.append(call)
            continue
        answered = truth.answered.get(call.request_id)
        if answered is None or not answered.changed:
            # Never carried out: it was given up, or is counted among the lost.
            continue
        ended = call.ended if call.acknowledged else NEVER
        name = f"{call.kind} {call.value!r}"
        writes.append(Write(answered.revision, call.began, ended, name, call.kind is Kind.FORGET))
        if call.value is not None:
            places[call.value] = answered.revision
    judged = [
        Read(None if call.value is None else places.get(call.value, -1), call.began, call.ended, f"read {call.value!r}")
        for call in reads
    ]
    return writes, judged


def _not_last(writes: Iterable[Call], truth: Truth, final: dict[tuple[str, str], str | None]) -> list[str]:
    last: dict[tuple[str, str], tuple[int, str | None]] = {}
    for call in writes:
        answered = truth.answered.get(call.request_id)
        if call.kind is Kind.LINK or answered is None or not answered.changed:
            continue
        last[call.tenant, call.key] = max(last.get((call.tenant, call.key), (0, None)), (answered.revision, call.value))
    wrong = []
    for key, (_, value) in last.items():
        if final.get(key) != value or truth.texts.get(key) != value:
            wrong.append(f"{key}: written {value!r}, API {final.get(key)!r}, Postgres {truth.texts.get(key)!r}")
    return wrong


def _answers(history: History) -> str:
    counts = history.counts
    recalls = f"{counts['recalls']} recalls ({counts['degraded recalls']} of them degraded)"
    return f"{recalls}, {counts['reads']} reads, {counts['failed tries']} failed tries"
