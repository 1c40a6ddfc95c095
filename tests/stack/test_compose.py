"""compose/: the files fit together; containers cannot run on the project's machines."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

COMPOSE = Path(__file__).parents[2] / "compose"
TEXT = (COMPOSE / "compose.yaml").read_text()


def test_every_mounted_file_is_there() -> None:
    mounts = re.findall(r"^ +- (?:\$\{\w+:-)?(\.{1,2}/[^:}]+)\}?:/", TEXT, re.MULTILINE)
    assert len(mounts) == 6
    for mount in mounts:
        assert (COMPOSE / mount).exists(), mount


def test_images_are_pinned_and_ports_stay_on_loopback() -> None:
    images = re.findall(r"^ +image: (\S+)$", TEXT, re.MULTILINE)
    assert len(images) == 6
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image
    ports = re.findall(r'^ +- "([^"]*:\d+)"$', TEXT, re.MULTILINE)
    assert len(ports) == 8
    assert all(port.startswith("127.0.0.1:") for port in ports)


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
