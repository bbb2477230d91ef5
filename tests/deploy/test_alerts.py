"""deploy/prometheus, read by promtool: the rules hold, and fire when they should and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.compose import DEPLOY
from tests.support.tools import tool

PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "alerts.yaml"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One call of promtool."""
    return subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True)


def test_promtool_finds_the_rules_and_the_configuration_valid() -> None:
    for kind, file in (("rules", RULES), ("config", PROMETHEUS / "prometheus.yaml")):
        told = promtool("check", kind, file)
        assert 0 == told.returncode, told.stdout + told.stderr


# alert, series over twenty minutes, labels it fires with
FIRING = [
    ("SomaServerDown", {'up{job="soma-brain",instance="b"}': "1 1 0x40"}, {"job": "soma-brain", "instance": "b"}),
    (
        "SomaComponentDown",
        {'sfm_component_state{component="milvus",state="down",instance="m"}': "1x40"},
        {"component": "milvus", "state": "down", "instance": "m"},
    ),
    ("SomaLongTermMemoryAway", {'degraded_alert{instance="b"}': "1x40"}, {"instance": "b"}),
    (
        "SomaBreakerOpen",
        {'circuit_breaker_state{component="memory",instance="b"}': "2x40"},
        {"component": "memory", "instance": "b"},
    ),
    ("SomaOutboxGrows", {'outbox_pending_total{instance="b"}': "10001x40"}, {"instance": "b"}),
    (
        "SomaOutboxOld",
        {'outbox_oldest_seconds{instance="b"}': "901x40", 'outbox_pending_total{instance="b"}': "1x40"},
        {"instance": "b"},
    ),
    (
        "SomaOutboxFull",
        {'outbox_refused_total{scope="disk",instance="b"}': "0+1x40"},
        {"scope": "disk", "instance": "b"},
    ),
    ("SomaDeadLetters", {'outbox_dead_letters{instance="b"}': "1x40"}, {"instance": "b"}),
    ("SomaDiskLow", {'outbox_disk_free_bytes{instance="b"}': "1e9x40"}, {"instance": "b"}),
    ("SomaIndexLags", {'sfm_index_lag_seconds{instance="m"}': "301x40"}, {"instance": "m"}),
    ("SomaIndexRefuses", {'sfm_index_poisoned_rows{instance="m"}': "1x40"}, {"instance": "m"}),
    (
        "SomaFaults",
        {'sfm_request_total{operation="MemoryService/Get",status="INTERNAL",instance="m"}': "0+1x40"},
        {"operation": "MemoryService/Get", "instance": "m"},
    ),
    (
        "SomaUnavailable",
        {
            'sfm_request_total{operation="MemoryService/Get",status="UNAVAILABLE",instance="b"}': "0+1x40",
            'sfm_request_total{operation="MemoryService/Get",status="OK",instance="b"}': "0+9x40",
        },
        {"instance": "b"},
    ),
    (
        "SomaRecallSlow",
        {
            f'sfm_request_duration_seconds_bucket{{operation="MemoryService/Recall",instance="b",le="{le}"}}': series
            for le, series in (("0.25", "0+1x60"), ("1", "0+10x60"), ("+Inf", "0+10x60"))
        },
        {"instance": "b"},
    ),
    (
        "SomaLoopBlocked",
        {
            f'sfm_loop_lag_seconds_bucket{{instance="b",le="{le}"}}': series
            for le, series in (("0.1", "0+1x60"), ("0.5", "0+10x60"), ("+Inf", "0+10x60"))
        },
        {"instance": "b"},
    ),
    (
        "SomaConnectionsSpent",
        {
            'sfm_postgres_connections{pool="interactive",state="used",instance="m"}': "12x40",
            'sfm_postgres_connections{pool="interactive",state="limit",instance="m"}': "12x40",
        },
        {"pool": "interactive", "instance": "m"},
    ),
]

QUIET = {
    'up{job="soma-brain",instance="b"}': "1x60",
    'sfm_component_state{component="milvus",state="down",instance="m"}': "0x60",
    'degraded_alert{instance="b"}': "0x60",
    'circuit_breaker_state{component="memory",instance="b"}': "0x60",
    'outbox_pending_total{instance="b"}': "100x60",
    'outbox_oldest_seconds{instance="b"}': "2x60",
    'outbox_refused_total{scope="disk",instance="b"}': "3x60",
    'outbox_dead_letters{instance="b"}': "0x60",
    'outbox_disk_free_bytes{instance="b"}': "1e11x60",
    'sfm_index_lag_seconds{instance="m"}': "3x60",
    'sfm_index_poisoned_rows{instance="m"}': "0x60",
    'sfm_request_total{operation="MemoryService/Get",status="INTERNAL",instance="m"}': "3x60",
    'sfm_request_total{operation="MemoryService/Get",status="UNAVAILABLE",instance="b"}': "0+1x60",
    'sfm_request_total{operation="MemoryService/Get",status="OK",instance="b"}': "0+99x60",
    'sfm_postgres_connections{pool="interactive",state="used",instance="m"}': "3x60",
    'sfm_postgres_connections{pool="interactive",state="limit",instance="m"}': "12x60",
}


def tried(tmp_path: Path, series: dict[str, str], expected: dict[str, dict[str, str] | None]) -> None:
    """Let promtool play the series; ``expected`` are the labels each alert fires with, None for none."""
    rules = yaml.safe_load(RULES.read_text())
    severities = {rule["alert"]: rule["labels"]["severity"] for group in rules["groups"] for rule in group["rules"]}
    unannotated = tmp_path / "rules.yaml"
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    unannotated.write_text(yaml.safe_dump(rules))
    test = {
        "rule_files": [str(unannotated)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "18m",
                        "alertname": name,
                        "exp_alerts": []
                        if labels is None
                        else [{"exp_labels": {**labels, "severity": severities[name]}}],
                    }
                    for name, labels in expected.items()
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    told = promtool("test", "rules", file)
    assert 0 == told.returncode, told.stdout + told.stderr


@pytest.mark.parametrize(("alert", "series", "labels"), FIRING, ids=[alert for alert, _, _ in FIRING])
def test_an_alert_fires_when_there_is_reason(
    tmp_path: Path, alert: str, series: dict[str, str], labels: dict[str, str]
) -> None:
    tried(tmp_path, series, {alert: labels})


def test_nothing_fires_while_all_is_well(tmp_path: Path) -> None:
    tried(tmp_path, QUIET, {alert: None for alert, _, _ in FIRING})


def test_every_alert_is_tried_and_has_a_runbook() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == [alert for alert, _, _ in FIRING]
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    for rule in rules:
        assert f"docs/operations.md#{rule['alert'].lower()}" == rule["annotations"]["runbook"]
        assert f"### {rule['alert']}\n" in operations
