"""deploy/helm, read by Helm and, as Kubernetes would read it, by kubectl-validate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from soma_embedded.keys import BRAIN_SCOPES
from tests.support.compose import DEPLOY
from tests.support.tools import tool

CHART = DEPLOY / "helm" / "soma"
SETS = sorted((DEPLOY / "helm" / "values").glob("*.yaml"))
KUBERNETES = "1.30"
OPERATOR = "monitoring.coreos.com/v1"


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One call of Helm."""
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True)


def rendered(*values: str | Path) -> str:
    """The chart with these values."""
    told = helm("template", "soma", CHART, "--kube-version", KUBERNETES, "--namespace", "agents", *values)
    assert 0 == told.returncode, told.stderr
    return told.stdout


def objects(text: str) -> Iterator[dict[str, Any]]:
    """What is rendered, object by object."""
    yield from (one for one in yaml.safe_load_all(text) if one)


def of_kind(text: str, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by their names."""
    return {one["metadata"]["name"]: one for one in objects(text) if one["kind"] == kind}


def test_there_are_three_sets_of_values() -> None:
    assert ["distributed", "managed", "trial"] == [path.stem for path in SETS]


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_the_chart_passes_helms_own_lint(values: Path) -> None:
    told = helm("lint", "--strict", CHART, "-f", values)
    assert 0 == told.returncode, told.stdout


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_what_is_rendered_is_what_kubernetes_takes(values: Path, tmp_path: Path) -> None:
    found = [one for one in objects(rendered("-f", values)) if one["apiVersion"] != OPERATOR]
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(found))
    told = subprocess.run([tool("kubectl-validate"), tmp_path, "--version", KUBERNETES], capture_output=True, text=True)
    assert 0 == told.returncode, told.stdout + told.stderr


def test_a_misspelt_field_would_be_noticed(tmp_path: Path) -> None:
    text = rendered("-f", SETS[-1]).replace("readOnlyRootFilesystem", "readonlyRootFilesystem")
    (tmp_path / "rendered.yaml").write_text(text)
    told = subprocess.run([tool("kubectl-validate"), tmp_path, "--version", KUBERNETES], capture_output=True, text=True)
    assert (1, True) == (told.returncode, "readonlyRootFilesystem" in told.stdout + told.stderr)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("milvus.uri=milvus:19530", "/milvus/uri"),
        ("milvus.url=http://milvus:19530", "url"),
        ("brain.replicas=0", "replicas"),
        ("brain.storage.size=much", "size"),
        ("memory.env.POSTGRES_URL=x", "POSTGRES_URL"),
        ("embedder.kind=openai", "model"),
        ("postgres.url=", "postgres"),
    ],
)
def test_the_schema_refuses_values_that_cannot_work(wrong: str, told: str) -> None:
    said = helm("template", "soma", CHART, "--kube-version", KUBERNETES, "-f", SETS[-1], "--set", wrong)
    assert (1, True) == (said.returncode, told in said.stderr), said.stderr


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_every_pod_is_confined_and_probed(values: Path) -> None:
    text = rendered("-f", values)
    sets = {**of_kind(text, "Deployment"), **of_kind(text, "StatefulSet")}
    for name, one in sets.items():
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"], name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], name
            assert not security["allowPrivilegeEscalation"], name
            assert ["ALL"] == security["capabilities"]["drop"], name
            assert {"requests", "limits"} == set(container["resources"]), name
        for container in pod["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= set(container), name


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_a_brain_keeps_its_outbox_on_a_volume_and_has_time_to_drain(values: Path) -> None:
    text = rendered("-f", values)
    (brain,) = of_kind(text, "StatefulSet").values()
    (claim,) = brain["spec"]["volumeClaimTemplates"]
    (container,) = brain["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value", "") for one in container["env"]}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert environment["SOMA_DATA_DIR"].startswith(f"{mounts[claim['metadata']['name']]}/")
    assert {"whenDeleted": "Retain", "whenScaled": "Retain"} == brain["spec"]["persistentVolumeClaimRetentionPolicy"]
    drain_s = float(environment["SOMA_DRAIN_S"]) + float(environment["SOMA_NOTICE_S"])
    assert brain["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s + 10


def test_the_owners_address_never_reaches_a_server() -> None:
    for path in SETS:
        for one in objects(rendered("-f", path)):
            if one["kind"] in ("Deployment", "StatefulSet"):
                for container in one["spec"]["template"]["spec"]["containers"]:
                    assert "SOMA_POSTGRES_ADMIN_URL" not in {each["name"] for each in container.get("env", [])}


def test_only_brains_and_envoy_may_call_the_memory_server() -> None:
    policies = of_kind(rendered("-f", DEPLOY / "helm" / "values" / "managed.yaml"), "NetworkPolicy")
    calls = policies["soma-memory"]["spec"]["ingress"][0]
    callers = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in calls["from"]}
    assert ({"brain", "envoy"}, [9595]) == (callers, [port["port"] for port in calls["ports"]])


def test_envoy_finds_both_servers_by_the_names_of_their_services() -> None:
    text = rendered("-f", DEPLOY / "helm" / "values" / "managed.yaml")
    config = yaml.safe_load(of_kind(text, "ConfigMap")["soma-envoy"]["data"]["envoy.yaml"])
    hosts = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"][
            "socket_address"
        ]["address"]
        for cluster in config["static_resources"]["clusters"]
    }
    assert {"brain": "soma-brains", "memory": "soma-memory"} == hosts
    headless = of_kind(text, "Service")
    assert {"None"} == {headless[name]["spec"]["clusterIP"] for name in hosts.values()}


def test_the_shipped_alerts_and_dashboard_are_the_charts() -> None:
    text = rendered("-f", DEPLOY / "helm" / "values" / "managed.yaml")
    rules = of_kind(text, "PrometheusRule")["soma"]["spec"]
    assert yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text()) == rules
    board = of_kind(text, "ConfigMap")["soma-dashboard"]["data"]["soma.json"]
    assert (DEPLOY / "grafana" / "dashboards" / "soma.json").read_text() == board


def test_generated_keys_are_such_as_servers_take() -> None:
    import json
    import re

    secret = of_kind(rendered("-f", SETS[-1]), "Secret")["soma-keys"]["stringData"]
    entries = json.loads(secret["bootstrap.json"])
    assert [secret["admin.key"], secret["brain.key"]] == [entry["key"] for entry in entries]
    assert list(BRAIN_SCOPES) == entries[1]["scopes"]
    assert all(re.fullmatch(r"soma_[a-z0-9]{8,32}_[A-Za-z0-9_-]{32,128}", entry["key"]) for entry in entries)
