"""compose/: the files fit together; containers cannot run on the project's machines."""

import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mqinfer.stack import StackSettings, repository

COMPOSE = Path(__file__).parents[2] / "compose"
TEXT = (COMPOSE / "compose.yaml").read_text()


def test_what_is_mounted_is_a_file_here_or_a_volume() -> None:
    services, volumes = re.split(r"^volumes:\n", TEXT, flags=re.MULTILINE)
    declared = re.findall(r"^  (\w+):$", volumes, re.MULTILINE)
    mounts = re.findall(r"^ +- (?:\$\{\w+:-)?([\w./-]+)\}?:/", services, re.MULTILINE)
    assert set(declared) == {mount for mount in mounts if "/" not in mount}
    for mount in mounts:
        assert mount in declared or (COMPOSE / mount).exists(), mount


def test_images_are_pinned() -> None:
    services = re.split(r"^volumes:\n", TEXT, flags=re.MULTILINE)[0]
    names = re.findall(r"^  ([\w-]+):$", services, re.MULTILINE)
    images = re.findall(r"^ +image: (\S+)$", services, re.MULTILINE)
    assert len(images) == len(names)
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image


def test_ports_stay_on_loopback_and_are_those_of_the_embedded_stack() -> None:
    ports = re.findall(r'^ +- "([^"]*:\d+)"$', TEXT, re.MULTILINE)
    published = {}
    for port in ports:
        found = re.fullmatch(r"127\.0\.0\.1:\$\{(\w+)_PORT:-(\d+)\}:\d+", port)
        assert found is not None, port
        published[found[1].lower()] = int(found[2])
    settings = StackSettings()
    for field in fields(settings):
        if field.name.endswith("_port"):
            name, port = field.name.removesuffix("_port"), getattr(settings, field.name)
            # Those for whoever looks on are closed in the embedded stack unless they are asked for.
            assert published[name] == port or port is None, name


def test_a_model_whose_process_died_can_be_loaded_anew_and_changes_are_taken_up() -> None:
    triton, models = (
        re.split(rf"^  {name}:\n", TEXT, flags=re.MULTILINE)[1].split("\n\n")[0]
        for name in ("triton", "models")
    )
    assert "--model-control-mode=explicit" in triton
    assert "--load-model=*" in triton
    found = re.search(r"([\w./]+):/repository.py:ro", models)
    assert found is not None
    assert (COMPOSE / found[1]).samefile(repository.__file__)


def test_every_datasource_of_the_dashboard_is_provisioned() -> None:
    dashboard = json.loads((COMPOSE / "grafana" / "dashboards" / "mqinfer.json").read_text())
    provisioned = (COMPOSE / "grafana/provisioning/datasources/mqinfer.yaml").read_text()
    uids = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert uids == set(re.findall(r"uid: (\w+)", provisioned))
    expressions = json.dumps(dashboard["panels"])
    for metric in (
        "mqinfer_messages_total",
        "mqinfer_in_flight",
        "mqinfer_lag",
        "mqinfer_handle_seconds_bucket",
        "mqinfer_dead_letters_total",
    ):
        assert metric in expressions


def test_clickhouse_configuration_parses() -> None:
    root = ElementTree.parse(COMPOSE / "clickhouse.xml").getroot()
    port = root.findtext("prometheus/port")
    assert f"clickhouse:{port}" in (COMPOSE / "prometheus.yml").read_text()


def test_docker_compose_accepts_the_files() -> None:
    docker = shutil.which("docker")
    command = [docker or "", "compose", "version"]
    if docker is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no docker compose here")
    files = ["-f", str(COMPOSE / "compose.yaml"), "-f", str(COMPOSE / "compose.gpu.yaml")]
    done = subprocess.run(
        [docker, "compose", *files, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
