"""deploy/compose.yaml and the Dockerfile, read by Docker Compose and by hadolint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import DEPLOY
from tests.support.elsewhere import BESIDE, PORTS
from tests.support.tools import tool

COMPOSE = DEPLOY / "compose.yaml"
OURS = ("keys", "migrate", "memory", "brain")


def config(tmp_path: Path, variables: str, *beside: Path) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the file, and of those beside it."""
    env = tmp_path / "env"
    env.write_text(variables)
    files = [word for file in (COMPOSE, *beside) for word in ("-f", str(file))]
    command = [str(tool("docker-compose")), *files, "--env-file", str(env), "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": str(tmp_path)})


def chosen() -> str:
    """The example with every password chosen."""
    return (DEPLOY / "env.example").read_text().replace("PASSWORD=\n", "PASSWORD=chosen\n")


@pytest.fixture
def composed(tmp_path: Path) -> dict[str, Any]:
    told = config(tmp_path, chosen())
    assert 0 == told.returncode, told.stderr
    loaded: dict[str, Any] = json.loads(told.stdout)
    return loaded


def test_the_file_is_valid_and_has_everything_that_soma_needs(composed: dict[str, Any]) -> None:
    stores = {"postgres", "redis", "milvus", "etcd", "minio"}
    seen = {"otel-collector", "jaeger", "prometheus", "grafana"}
    assert {*OURS, *stores, *seen, "envoy"} == set(composed["services"])


def test_what_tests_add_opens_the_stores_to_this_machine_alone(tmp_path: Path) -> None:
    told = config(tmp_path, chosen(), BESIDE)
    assert 0 == told.returncode, told.stderr
    services = json.loads(told.stdout)["services"]
    for name, port in PORTS.items():
        assert [("127.0.0.1", port)] == [(one["host_ip"], one["target"]) for one in services[name]["ports"]], name


def test_a_password_that_was_not_chosen_is_asked_for(tmp_path: Path) -> None:
    told = config(tmp_path, (DEPLOY / "env.example").read_text())
    assert (1, True) == (told.returncode, "required variable" in told.stderr), told.stderr


def test_our_containers_may_do_nothing_that_they_need_not(composed: dict[str, Any]) -> None:
    for name in OURS:
        one = composed["services"][name]
        assert (True, ["ALL"], ["no-new-privileges:true"]) == (one["read_only"], one["cap_drop"], one["security_opt"])
        assert "user" not in one, "the image's own user is none of root's"


def test_nothing_is_published_to_the_network_unless_asked_for(composed: dict[str, Any]) -> None:
    published = [port for one in composed["services"].values() for port in one.get("ports", [])]
    assert {"127.0.0.1"} == {port["host_ip"] for port in published}
    assert len(published) == len({port["published"] for port in published})


def test_what_is_mounted_from_the_tree_is_there(composed: dict[str, Any]) -> None:
    mounts = [mount for one in composed["services"].values() for mount in one.get("volumes", [])]
    bound = [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]
    assert bound
    assert [] == [path for path in bound if not path.exists()]


def test_images_are_pinned_and_milvus_is_new_enough(composed: dict[str, Any]) -> None:
    images = {name: one["image"] for name, one in composed["services"].items() if name not in OURS}
    assert [] == [image for image in images.values() if ":" not in image or image.endswith(":latest")]
    milvus = tuple(int(part) for part in images["milvus"].rpartition(":v")[2].split("."))
    assert milvus >= (2, 6, 10)


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (0, "") == (told.returncode, told.stdout), told.stdout


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    stage = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM")) :]
    assert ["USER 10001:10001"] == [line for line in stage if line.startswith("USER")]
