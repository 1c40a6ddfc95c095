"""What is rendered is accepted by strict schemas, and the same files with a slip are refused."""

import copy
import fnmatch
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from mqinfer import plan
from mqinfer.cli import main
from mqinfer.deploy.declaration import declaration
from mqinfer.deploy.deployment import Cluster
from mqinfer.deploy.processes import Plan
from mqinfer.deploy.reading import read
from mqinfer.deploy.targets import compose, k8s, local
from mqinfer.deploy.targets.keda import scaled
from mqinfer.supervise.group import Group
from tests.deploy.schemas import check
from tests.support.deploy_app import make

REFUSED = (jsonschema.ValidationError, kubernetes_validate.ValidationError)
FILE = """
image = "registry.example/plants:1"
secrets = ["clickhouse_url", "console_token"]
[settings]
nats_url = "nats://nats:4222"
blobs = "nats://"
request_timeout = "5"
[workers.graders]
stages = ["grade", "watch"]
processes = "1..3"
cpu = 0.5
memory = "1GB"
max_messages = 100000
[workers.rest]
processes = 2
[indexes.pictures]
parts = 2
replicas = 3
memory = "1GB"
[alerts]
failing = 0.2
labels = { team = "fields" }
[gateway]
replicas = 2
options = ["--max-wait=30s"]
[console]
[triton]
gpus = 1
[k8s]
namespace = "farm"
prometheus = "http://prometheus:9090"
monitor_labels = { release = "monitoring" }
"""


def planned(folder: Path, target: str) -> Plan:
    file = folder / "deploy.toml"
    file.write_text(FILE.replace('request_timeout = "5"\n', "grace = 30\n"))
    app = make(shards=4)
    return Plan("tests.support.deploy_app:app", read(file, app, target), declaration(app))


def objects(files: dict[str, str]) -> list[dict[str, Any]]:
    return [
        one
        for name, text in files.items()
        if name != "kustomization.yaml" and not name.startswith("values/")
        for one in yaml.safe_load_all(text)
    ]


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each key of an object stands, whose name is not free."""
    free = {"labels", "matchLabels", "annotations", "data", "selector", "requests", "limits"}
    if isinstance(value, dict):
        for key, inner in value.items():
            if not path or path[-1] not in free:
                yield (*path, key)
            yield from keys(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from keys(inner, (*path, number))


def misspelt(thing: Any, path: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(thing)
    inner = made
    for one in path[:-1]:
        inner = inner[one]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return made


def test_k8s_files_are_sound_and_misspelt_ones_refused(tmp_path: Path) -> None:
    files = k8s.render(planned(tmp_path, "k8s"), make(shards=4))
    found = objects(files)
    kinds = [one["kind"] for one in found]
    assert {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"} < set(kinds)
    assert {"ScaledObject", "PodMonitor", "PrometheusRule"} < set(kinds)
    slips = 0
    seen = set()
    for one in found:
        check(one)
        for path in keys(one):
            shape = (one["kind"], *(part for part in path if isinstance(part, str)))
            if path in (("kind",), ("apiVersion",)) or shape in seen:
                continue
            seen.add(shape)
            with pytest.raises(REFUSED):
                check(misspelt(one, path))
            slips += 1
    assert slips > 80


def test_what_k8s_is_told(tmp_path: Path) -> None:
    app = make(shards=4)
    files = k8s.render(planned(tmp_path, "k8s"), app)
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects(files)}
    scaled = found["ScaledObject", "deployed-worker-graders"]["spec"]
    pods = found["Deployment", "deployed-worker-graders"]["spec"]
    # The number is KEDA's alone; all consumers count, those of each partition and of jobs too.
    assert "replicas" not in pods
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 3)
    lags = [t for t in scaled["triggers"] if t["type"] == "nats-jetstream"]
    consumers = {(t["metadata"]["stream"], t["metadata"]["consumer"]) for t in lags}
    assert consumers == set(plan.backlog(app, ["grade", "watch"]))
    assert len(consumers) == 4 + 2
    # Against a gate it does not grow: no more than there are, and fewer where less waits.
    total = " + ".join(trigger["name"] for trigger in lags)
    formula = scaled["advanced"]["scalingModifiers"]["formula"]
    assert formula == f"held > 0 && {total} > pods * 1000 ? pods * 1000 : {total}"
    asked = {t["name"]: t["metadata"] for t in scaled["triggers"] if t not in lags}
    assert 'mqinfer_blocked{app="deployed", run="", stage=~"grade|watch"}' in asked["held"]["query"]
    assert "mqinfer_model_calls_queue" in asked["held"]["query"]
    assert (
        asked["pods"]["query"] == 'count(mqinfer_in_flight{app="deployed", run="", stage="grade"})'
    )
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["policies"][0]["value"] == 100
    assert behavior["scaleDown"]["policies"][0] == {"type": "Pods", "value": 1, "periodSeconds": 60}
    rest = found["Deployment", "deployed-worker-rest"]["spec"]
    assert rest["replicas"] == 2
    assert ("ScaledObject", "deployed-worker-rest") not in found
    pod = pods["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 30
    container = pod["containers"][0]
    assert container["args"][:4] == [
        "worker",
        "tests.support.deploy_app:app",
        "--stage=grade",
        "--stage=watch",
    ]
    assert container["resources"]["limits"] == {"memory": "1000000000"}
    assert {one["name"] for one in container["env"]} == {
        "MQINFER_CLICKHOUSE_URL",
        "MQINFER_CONSOLE_TOKEN",
    }
    settings = found["ConfigMap", "deployed-settings"]["data"]
    assert settings["MQINFER_TRITON_URL"] == "deployed-triton:8001"
    assert "MQINFER_CLICKHOUSE_URL" not in settings
    assert found["Service", "deployed-triton"]["spec"]["clusterIP"] == "None"
    for part in (1, 2):
        held = found["Deployment", f"deployed-index-pictures-{part}"]["spec"]
        assert held["replicas"] == 3
        arguments = held["template"]["spec"]["containers"][0]["args"]
        assert arguments[2:5] == ["serve", "pictures", f"--part={part}/2"]
        assert ("PodDisruptionBudget", f"deployed-index-pictures-{part}") in found
    told = found["PrometheusRule", "deployed-rules"]
    assert told["metadata"]["labels"]["release"] == "monitoring"
    alerts = {rule["alert"]: rule for rule in told["spec"]["groups"][0]["rules"]}
    assert alerts["MqinferFailing"]["expr"].endswith("> 0.2")
    assert alerts["MqinferFewReplicas"]["labels"]["team"] == "fields"
    board = json.loads(found["ConfigMap", "deployed-board"]["data"]["deployed.json"])
    assert "graders (1 to 3)" in json.dumps(board)
    kustomization = yaml.safe_load(files["kustomization.yaml"])
    assert kustomization["namespace"] == "farm"
    assert set(kustomization["resources"]) == {
        name for name in files if name != "kustomization.yaml" and not name.startswith("values/")
    }


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_takes_them(tmp_path: Path) -> None:
    for name, text in k8s.render(planned(tmp_path, "k8s"), make(shards=4)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert all(one["metadata"]["namespace"] == "farm" for one in yaml.safe_load_all(done.stdout))


def test_without_prometheus_lags_alone_are_added_up(tmp_path: Path) -> None:
    app = make(shards=4)
    one = planned(tmp_path, "k8s")
    quiet = msgspec.structs.replace(one.deployment, k8s=Cluster())
    group = one.deployment.workers["graders"]
    found = scaled(Plan("a:app", quiet, declaration(app)), app, {"name": "x"}, group)
    assert found["spec"]["advanced"]["scalingModifiers"]["formula"] == "t0 + t1 + t2 + t3 + t4 + t5"
    slow = msgspec.structs.replace(group, cooldown=7200.0)  # more than Kubernetes takes
    found = scaled(Plan("a:app", quiet, declaration(app)), app, {"name": "x"}, slow)
    down = found["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 3600
    assert down["policies"][0]["periodSeconds"] == 1800


def test_another_declaration_makes_other_pods(tmp_path: Path) -> None:
    def revisions(batch: int) -> dict[str, str]:
        app = make(batch=batch, shards=4)
        one = Plan("a:app", planned(tmp_path, "k8s").deployment, declaration(app))
        return {
            thing["metadata"]["name"]: thing["spec"]["template"]["metadata"]["annotations"][
                "mqinfer/revision"
            ]
            for thing in objects(k8s.render(one, app))
            if thing["kind"] == "Deployment" and "triton" not in thing["metadata"]["name"]
        }

    before, after = revisions(8), revisions(16)
    assert before["deployed-worker-graders"] != after["deployed-worker-graders"]
    assert before["deployed-worker-rest"] == after["deployed-worker-rest"]


def test_compose_files_are_sound_and_misspelt_ones_refused(tmp_path: Path) -> None:
    text = compose.render(planned(tmp_path, "compose"), make(shards=4))["compose.yaml"]
    # Docker's word for the host, which this parser takes for an address that is none.
    text = text.replace(":host-gateway", ":172.17.0.1")
    compose_spec.PyCompose.from_yaml(text)
    made = yaml.safe_load(text)
    graders = made["services"]["worker-graders"]
    assert "--processes=1..3" in graders["command"]
    assert graders["deploy"]["resources"]["limits"]["cpus"] == "1.5"
    held = made["services"]["index-pictures-2"]
    assert held["deploy"] == {"resources": {"limits": {"memory": "1000000000b"}}, "replicas": 3}
    for path in (
        ("services",),
        ("services", "gateway", "image"),
        ("services", "gateway", "ports"),
        ("services", "worker-rest", "stop_grace_period"),
        ("services", "worker-rest", "healthcheck", "test"),
        ("services", "worker-graders", "deploy", "resources"),
    ):
        with pytest.raises(ValueError, match=r"x-|services"):
            compose_spec.PyCompose.from_yaml(yaml.safe_dump(misspelt(made, path)))


def test_prometheus_and_grafana_of_compose_take_up_what_is_rendered(tmp_path: Path) -> None:
    files = compose.render(planned(tmp_path, "compose"), make(shards=4))
    servers = Path(__file__).parents[2] / "compose"
    given = yaml.safe_load(files["observe.yaml"])["services"]
    base = yaml.safe_load((servers / "compose.yaml").read_text())["services"]
    assert given.keys() <= base.keys()
    (board,), (rules,) = (given[name]["volumes"] for name in ("grafana", "prometheus"))
    folder = "${DEPLOYED:?the folder that this file is in, as a whole path}"
    assert (board["source"], rules["source"]) == (f"{folder}/grafana", f"{folder}/prometheus")
    # Where they are looked for, and inside of no other mount that is read only.
    provider = servers / "grafana/provisioning/dashboards/mqinfer.yaml"
    (looked,) = yaml.safe_load(provider.read_text())["providers"]
    assert board["target"] == f"{looked['options']['path']}/deployed"
    asked = yaml.safe_load((servers / "prometheus.yml").read_text())
    for name, patterns in (("rules", "rule_files"), ("scrape", "scrape_config_files")):
        wanted = f"{rules['target']}/{name}.yml"
        assert any(fnmatch.fnmatch(wanted, one) for one in asked[patterns]), name
        assert f"prometheus/{name}.yml" in files
    for service, added in given.items():
        for mount in base[service]["volumes"]:
            assert not added["volumes"][0]["target"].startswith(mount.split(":")[1] + "/")
    merged = {"services": {name: {"image": "x", **one} for name, one in given.items()}}
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(merged).replace(folder, "/srv"))
    jobs = yaml.safe_load(files["prometheus/scrape.yml"])["scrape_configs"]
    targets = jobs[0]["static_configs"][0]["targets"]
    assert {"worker-graders:9000", "worker-graders:9002", "gateway:8080"} <= set(targets)
    names = {one["names"][0] for one in jobs[1]["dns_sd_configs"]}
    services = yaml.safe_load(files["compose.yaml"])["services"]
    assert names | {one.split(":")[0] for one in targets} == set(services)
    assert json.loads(files["grafana/deployed.json"])["uid"] == "mqinfer-deployed"
    json.loads(files["prometheus/rules.yml"])


def test_the_image_runs_as_nobody_in_particular(tmp_path: Path) -> None:
    text = compose.render(planned(tmp_path, "compose"), make(shards=4))["Dockerfile"]
    assert re.search(r"^USER 65532", text, re.MULTILINE)
    assert text.rstrip().endswith('ENTRYPOINT ["mqinfer"]\nCMD ["--help"]')


def test_local_files_are_what_a_supervisor_reads_and_systemd_takes(tmp_path: Path) -> None:
    app = make(shards=4)
    one = planned(tmp_path, "local")
    files = local.render(one, app)
    groups = local.read(files[local.FILE].encode())
    assert groups == local.groups(one, app)
    assert [group.name for group in groups] == [
        "worker-graders",
        "worker-rest",
        "index-pictures-1",
        "index-pictures-2",
        "gateway",
        "console",
    ]
    assert groups[2].bounds.least == groups[2].bounds.most == 3
    assert sum("index-pictures-1" in name for name in files) == 3  # systemd: a replica is a unit
    assert isinstance(groups[0], Group)
    assert groups[0].bounds.most == 3
    folder = tmp_path / "systemd"
    folder.mkdir()
    units = {name: text for name, text in files.items() if name.startswith("systemd/")}
    for name, text in units.items():
        # A program that is there, or each unit would be at fault.
        (tmp_path / name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    if shutil.which("systemd-analyze") is None:
        return
    paths = [str(tmp_path / name) for name in units]
    verify = ["systemd-analyze", "verify", "--man=no", *paths]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=300)
    assert not [line for line in done.stderr.splitlines() if "deployed" in line], done.stderr


def test_the_examples_files_are_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    for file in sorted(root.glob("examples/*/deploy.toml")):
        app = f"examples.{file.parent.name}.app:app"
        for target in ("local", "compose", "k8s"):
            out = tmp_path / file.parent.name / target
            code = main(["deploy", "render", app, str(file), f"--target={target}", f"--out={out}"])
            assert code == 0
        for path in (tmp_path / file.parent.name / "k8s").glob("*.yaml"):
            if path.name != "kustomization.yaml":
                for one in yaml.safe_load_all(path.read_text()):
                    check(one)
