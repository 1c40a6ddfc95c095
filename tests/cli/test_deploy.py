"""`mqinfer deploy` with real processes: applied, compared, changed while it runs, stopped."""

import json
import os
import signal
import subprocess
from typing import Any

from mqinfer.stack.ports import free_port
from tests.cli.test_scaling import APP, ended, events, lines
from tests.cli.test_scaling import publish as burst
from tests.support.cli import TIMEOUT, Shell, until

GROUPS = """
[workers.count]
stages = ["count"]
[workers.rest]
processes = 1
"""


def write(served: Shell, text: str) -> str:
    (served.folder / "deploy.toml").write_text(text)
    return "deploy.toml"


def differences(served: Shell, file: str, code: int) -> list[dict[str, Any]]:
    found, out, err = served.run("deploy", "diff", served.app, file, "--target=local", "--json")
    assert found == code, err
    changes: list[dict[str, Any]] = json.loads(out)["changes"]
    return changes


def apply(served: Shell, file: str, **options: Any) -> subprocess.Popen[str]:
    return served.start("deploy", "apply", served.app, file, "--target=local", **options)


def publish(served: Shell, *words: str) -> None:
    path = served.folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": word}) for word in words))
    assert served.run("publish", served.app, "word", str(path))[0] == 0


def group_events(served: Shell, name: str, group: str) -> list[dict[str, Any]]:
    return [one for one in events(served, name) if one.get("group") == group]


def test_from_nothing_through_changes_to_the_end(served: Shell) -> None:
    file = write(served, GROUPS)
    assert {one["kind"] for one in differences(served, file, 1)} == {"begin"}
    running = apply(served, file, log="log")
    until(lambda: (served.folder / "log").exists() and not differences_now(served, file))
    publish(served, "a", "b")
    until(lambda: sorted(counted(served)) == ["a", "b"])

    # One group changes: its process is replaced, the other's is not, and nothing is lost.
    file = write(
        served, GROUPS.replace('stages = ["count"]', 'stages = ["count"]\nmax_messages = 900')
    )
    (change,) = differences(served, file, 1)
    assert change["where"] == "workers.count"
    assert change["what"] == "max_messages none -> 900"
    assert "one by one; nothing is lost" in change["then"]
    code, out, err = served.run("deploy", "apply", served.app, file, "--target=local")
    assert code == 0, err
    assert "supervises app" in out
    until(lambda: group_events(served, "process ended", "worker-count"))
    publish(served, "c")
    until(lambda: sorted(counted(served)) == ["a", "b", "c"])
    assert len(group_events(served, "process started", "worker-count")) == 2
    assert len(group_events(served, "process started", "worker-rest")) == 1
    # The new one was ready before the old one was told to end.
    order = [one["event"] for one in both(served, "worker-count")]
    assert order == ["process started", "process started", "process ended"]

    # One that cannot run does not take down what runs.
    broken = served.folder / ".mqinfer" / "deploy" / served.name / "local" / "processes.json"
    broken.write_text(broken.read_text().replace("--stage=count", "--stage=nobody"))
    until(lambda: group_events(served, "a process cannot run as configured", "worker-count"))
    publish(served, "d")
    until(lambda: "d" in counted(served))

    # A group less: it ends in order.
    file = write(served, "[workers.all]\n")
    assert {one["where"] for one in differences(served, file, 1)} == {
        "workers.all",
        "workers.count",
        "workers.rest",
    }
    assert served.run("deploy", "apply", served.app, file, "--target=local")[0] == 0
    until(lambda: group_events(served, "process ended", "worker-rest"))
    publish(served, "e")
    until(lambda: sorted(counted(served)) == ["a", "b", "c", "d", "e"])
    assert ended(running) == 0


def test_a_group_of_the_file_scales_through_a_kill_and_down_again(served: Shell) -> None:
    app = served.write(APP.replace("timeout=600", 'timeout=600, ack_wait="5s"'))
    file = write(
        served,
        "[workers.slow]\nstages = ['slow']\nprocesses = '1..3'\ntarget = '1s'\nbacklog = 5\n"
        "cooldown = '1s'\n[workers.rest]\n",
    )
    running = served.start("deploy", "apply", app, file, "--target=local", log="log")
    until(lambda: (served.folder / "log").exists() and len(events(served, "started")) >= 2)

    def of_slow(name: str) -> list[dict[str, Any]]:
        return group_events(served, name, "worker-slow")

    words = burst(served, app, "w", 60)
    # Nobody's handler ends before there are three, so a slow machine changes nothing.
    until(lambda: len(of_slow("process started")) >= 3)
    until(lambda: len(events(served, "started")) >= 4)
    assert [one["processes"] for one in of_slow("scaling")] == [2, 3]
    os.kill(of_slow("process started")[0]["pid"], signal.SIGKILL)
    until(lambda: len(of_slow("process started")) >= 4)
    (served.folder / "go").touch()
    until(lambda: set(lines(served.folder / "slow")) == words)  # lost: none
    until(lambda: of_slow("scaling")[-1]["processes"] == 1)
    until(lambda: len(of_slow("process ended")) == 2)
    assert ended(running) == 0


INDEXED = """
from mqinfer import App, Message

app = App("{name}")

class Vector(Message, subject="vector"):
    name: str
    vector: list[float]

class Seen(Message, subject="seen"):
    name: str

@app.stage
async def pass_by(vector: Vector) -> Seen:
    return Seen(name=vector.name)

app.index("pictures", of=Vector, key="name")
app.endpoint("ask", Vector, answers=Seen)
"""


def test_who_holds_an_index_is_replaced_when_the_next_one_has_read_it(served: Shell) -> None:
    app = served.write(INDEXED)
    ports = f"[gateway]\nport = {free_port()}\n[console]\nport = {free_port()}\n"
    text = f"[workers.all]\n{ports}[indexes.pictures]\n"
    running = served.start("deploy", "apply", app, write(served, text), "--target=local", log="log")

    def asked(*arguments: str) -> int:
        return served.run("deploy", *arguments, app, "deploy.toml", "--target=local")[0]

    until(lambda: (served.folder / "log").exists() and asked("diff") == 0)
    file = write(served, text + 'snapshot_every = "1m"\n')
    code, out, _ = served.run("deploy", "diff", app, file, "--target=local")
    assert code == 1
    assert "restart  index pictures: snapshot_every 5 min -> 60 s: its processes are" in out
    assert asked("apply") == 0
    until(lambda: group_events(served, "process ended", "index-pictures-1"))
    assert [one["event"] for one in both(served, "index-pictures-1")] == [
        *("process started", "process started", "process ended")
    ]
    until(lambda: asked("diff") == 0)
    # All take SIGTERM, and end in order.
    assert ended(running) == 0
    assert not events(served, "process crashed")


def counted(served: Shell) -> list[str]:
    path = served.folder / "counted"
    return path.read_text().split() if path.exists() else []


def both(served: Shell, group: str) -> list[dict[str, Any]]:
    names = ("process started", "process ended")
    found = [one for name in names for one in group_events(served, name, group)]
    return sorted(found, key=lambda one: str(one["timestamp"]))


def differences_now(served: Shell, file: str) -> bool:
    return served.run("deploy", "diff", served.app, file, "--target=local")[0] != 0


def test_what_drops_data_needs_a_word_for_it(served: Shell) -> None:
    source = (served.folder / f"{served.name}.py").read_text()
    app = served.write(
        source.replace(f'"{served.name}"', '"{name}", max_age="{age}"'), module="aged"
    )
    aged = served.folder / "aged.py"
    text = aged.read_text()
    file = write(served, "[workers.all]\n")
    aged.write_text(text.replace("{age}", "2d"))
    first = served.start("worker", app, "--drain")
    assert first.wait(TIMEOUT) == 0
    aged.write_text(text.replace("{age}", "1d"))
    refused = served.start("deploy", "apply", app, file, "--target=local")
    _, err = refused.communicate(timeout=TIMEOUT)
    assert refused.returncode == 2
    assert "stream aged drops data (see above); --drop applies it" in err


def test_what_is_somebody_elses_program_is_told(served: Shell, monkeypatch: Any) -> None:
    file = write(
        served,
        'image = "x:1"\nsecrets = ["nats_url", "triton_url", "clickhouse_url"]\n'
        "[settings]\nblobs = 'nats://'\n[workers.all]\n",
    )
    monkeypatch.setenv("PATH", str(served.folder))
    code, _, err = served.run("deploy", "apply", served.app, file, "--target=k8s")
    assert code == 2
    assert "kubectl is not installed here" in err
    assert "kubectl apply -k .mqinfer/deploy" in err
    # What comes first is done: a message that is published now has its consumers.
    stages = served.json("status", served.app, "--interval=0")["stages"]
    assert all(one["exists"] for one in stages)
    code, _, err = served.run("deploy", "diff", served.app, file, "--target=local")
    assert code == 2
    assert "was applied to k8s" in err
    assert served.run("deploy", "forget", served.app)[0] == 0
    assert served.run("deploy", "diff", served.app, file, "--target=local")[0] == 1
    assert served.run("deploy", "diff", served.app, file, "--target=moon")[0] == 2
