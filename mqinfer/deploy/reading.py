"""Reading: a `deploy.toml` becomes a `Deployment`, or every error in it is told at once.

Each error is a line that begins with its key, as TOML has it, and says what to do. What only the
app can tell (stages that nobody runs, aliases that nothing follows) is checked here as well.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from mqinfer import plan
from mqinfer.deploy import fields
from mqinfer.deploy.deployment import Cluster, Deployment, Held, Served, Triton, Workers
from mqinfer.deploy.fields import Table
from mqinfer.errors import ConfigurationError
from mqinfer.index import DTYPES, MAX_SHARDS
from mqinfer.inference.aliases import followed
from mqinfer.operate.alerts import Thresholds
from mqinfer.settings import Settings

if TYPE_CHECKING:
    from mqinfer.app import App

S = TypeVar("S", bound=Struct)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
TARGETS = ("local", "compose", "k8s")
_TOP = (
    "image", "settings", "secrets", "workers", "indexes", "gateway", "console", "models", "triton",
    "k8s", "alerts",
)  # fmt: skip


class Misread(ConfigurationError):
    """A file that cannot be deployed.

    Attributes:
        problems: a line each.
    """

    def __init__(self, file: str, problems: list[str]):
        self.problems = problems
        more = "" if len(problems) == 1 else f" ({len(problems)} problems)"
        super().__init__(f"{file}{more}: " + "; ".join(problems))


def read(file: Path, app: App, target: str) -> Deployment:
    """What a file says of an app.

    Args:
        file: its path.
        app: that is deployed.
        target: where to: local, compose or k8s.

    Raises:
        Misread: all that is wrong with it.
    """
    try:
        table = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {file}: docs/deploy.md shows one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misread(str(file), [f"it is no TOML: {error}"]) from None
    problems: list[str] = []
    found = _deployment(Table(table, "", problems, _TOP), app, target)
    problems += _elsewhere(found, target) if target != "local" else []
    if problems:
        raise Misread(str(file), problems)
    return found


def _elsewhere(found: Deployment, target: str) -> list[str]:
    """What is missing where each process has a disk and a network of its own."""
    problems = []
    given = {**found.settings, **dict.fromkeys(found.secrets, "secret")}
    if target == "k8s" and not found.image:
        problems.append(
            'image is missing: the container that has mqinfer and the app, "host/name:1"'
        )
    for name in ("nats_url", "triton_url", "clickhouse_url"):
        value = given.get(name, "127.0.0.1")
        served = name == "triton_url" and found.triton is not None and name not in given
        if not served and any(here in value for here in ("127.0.0.1", "localhost", "[::1]")):
            problems.append(
                f"settings.{name} is missing, or of this machine: a container reaches the server "
                f'by its name, or write secrets = ["{name}"]'
            )
    if given.get("blobs", "") != "secret" and "://" not in given.get("blobs", ""):
        problems.append(
            "settings.blobs is missing, or a folder, which containers do not share: s3://bucket, "
            "gs://bucket or nats://"
        )
    if found.console is not None and "console_token" not in found.secrets:
        problems.append('console lets nobody in from outside without secrets = ["console_token"]')
    return problems


# --- tables -------------------------------------------------------------------------------------


def _deployment(top: Table, app: App, target: str) -> Deployment:
    secrets = top.get("secrets", fields.texts, fields.NONE)
    return Deployment(
        image=top.get("image", fields.text, ""),
        settings=_settings(top, secrets, target),
        secrets=secrets,
        workers=_workers(top, app),
        indexes=_indexes(top, app),
        gateway=_served(top, "gateway", 8080, app),
        console=_served(top, "console", 8090, app),
        models=_models(top, app),
        triton=_triton(top, target),
        k8s=_k8s(top),
        alerts=_alerts(top),
    )


def _settings(top: Table, secrets: Iterable[str], target: str) -> dict[str, str]:
    """Those of `[settings]`, and over them those of `[settings.<target>]`."""
    known = {field.name: field for field in dataclasses.fields(Settings)}
    for name in secrets:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ": `mqinfer settings` lists them"
            top.wrong("secrets", f"names {name!r}, which is no setting{hint}")
    table = top.table("settings", [*known, *TARGETS])
    if table is None:
        return {}
    found = _values(table, known, secrets)
    for other in TARGETS:
        if (own := table.table(other, known)) is not None:
            values = _values(own, known, secrets)
            found |= values if other == target else {}
    return found


def _values(table: Table, known: Mapping[str, Any], secrets: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in table:
        if name not in known:
            continue  # said above, or of a target
        value = table.get(name, _setting, "")
        if known[name].metadata["secret"]:
            table.wrong(name, f'is a secret: write secrets = ["{name}"] at the top, not its value')
        elif name in secrets:
            table.wrong(name, "is in secrets as well: leave one of them out")
        elif value:
            try:
                # Files are of the machine that it runs on.
                known[name].metadata["kind"].parse(value)
            except (ConfigurationError, ValueError):
                allowed = known[name].metadata["kind"].allowed
                table.wrong(name, f"= {value!r} is not allowed: it must be {allowed}")
            found[name] = value
    return found


def _setting(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("is text or a number")
    return str(value)


def _workers(top: Table, app: App) -> dict[str, Workers]:
    try:
        tasks = {task.name: task for task in plan.tasks(app)}
    except ConfigurationError as error:
        top.wrong("", f"app {app.name}: {error}")
        return {}
    table = top.table("workers")
    if table is None:
        top.wrong("workers", "is missing: [workers.all] with processes = 1 runs every stage")
        return {}
    groups: dict[str, Workers] = {}
    runs: dict[str, str] = {}  # stage -> the group that runs it
    rest: str | None = None
    for name in table:
        one = table.table(name, (*Workers.__struct_fields__, "processes"))
        assert one is not None
        for key in ("least", "most"):
            if key in one:
                one.wrong(key, 'is said by processes: "1..8"')
        if not _NAME.fullmatch(name):
            one.wrong("", "is a name of small letters, digits and -, at most 40")
        stages = one.get("stages", fields.texts, fields.NONE)
        for stage in stages:
            if stage not in tasks:
                near = difflib.get_close_matches(stage, tasks, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(tasks)}"
                one.wrong("stages", f"names {stage!r}, which app {app.name} has not: {hint}")
            elif stage in runs:
                one.wrong("stages", f"names {stage!r}, which workers.{runs[stage]} runs: once only")
            else:
                runs[stage] = name
        if "stages" not in one:
            if rest is not None:
                one.wrong("stages", f"is missing, as in workers.{rest}: one group takes the rest")
            rest = name
        least, most = one.get("processes", fields.processes, (1, 1))
        ordered = [stage for stage in stages if stage in tasks and tasks[stage].ordered]
        if most > app.partitions and ordered and len(ordered) == len(stages):
            one.wrong(
                "processes",
                f"= {most} is more than the {app.partitions} partitions that {', '.join(ordered)} "
                "reads, each of which one process has: lower it",
            )
        groups[name] = Workers(
            stages=stages,
            least=least,
            most=most,
            target=one.get("target", fields.seconds, 30.0),
            backlog=one.get("backlog", fields.whole(1), 1000),
            cooldown=one.get("cooldown", fields.seconds, 60.0),
            max_messages=one.get("max_messages", fields.optional(fields.whole(1)), None),
            max_memory=one.get("max_memory", fields.optional(fields.size), None),
            cpu=one.get("cpu", fields.optional(fields.cpu), None),
            memory=one.get("memory", fields.optional(fields.size), None),
        )
    left = tuple(stage for stage in tasks if stage not in runs)
    if rest is not None:
        groups[rest] = _with_stages(groups[rest], left)
        if not left:
            table.wrong(rest, "has no stages left: the other groups run them all; leave it out")
    elif left:
        table.wrong("", f"run no {', '.join(left)}: a group without `stages` takes the rest")
    order = list(tasks)
    return {
        name: _with_stages(one, tuple(sorted(one.stages, key=lambda s: order.index(s))))
        if all(stage in tasks for stage in one.stages)
        else one
        for name, one in groups.items()
    }


def _with_stages(group: Workers, stages: tuple[str, ...]) -> Workers:
    return replace(group, stages=stages)


def _indexes(top: Table, app: App) -> dict[str, Held]:
    table = top.table("indexes")
    found: dict[str, Held] = {}
    for name in table or ():
        assert table is not None
        one = table.table(name, Held.__struct_fields__)
        assert one is not None
        index = app.indexes.get(name)
        if index is None:
            near = difflib.get_close_matches(name, app.indexes, n=1)
            has = ", ".join(app.indexes) or "none"
            hint = f"did you mean {near[0]}?" if near else f"it has {has}"
            one.wrong("", f"is no index of app {app.name}: {hint}")
            continue
        weights = one.get("weights", fields.weights, dict[str, float]())
        for model in weights:
            if model not in index.models:
                one.wrong("weights", f"names {model!r}; it has {', '.join(index.models)}")
        held = found[name] = Held(
            parts=one.get("parts", fields.whole(1, MAX_SHARDS), 1),
            replicas=one.get("replicas", fields.whole(1), 1),
            shards=one.get("shards", fields.optional(fields.whole(1, MAX_SHARDS)), None),
            dtype=one.get("dtype", fields.optional(fields.choice(DTYPES)), None),
            weights=weights,
            snapshot_every=one.get("snapshot_every", fields.seconds, 300.0),
            cpu=one.get("cpu", fields.optional(fields.cpu), None),
            memory=one.get("memory", fields.optional(fields.size), None),
        )
        if held.parts > (shards := held.shards or index.shards):
            one.wrong("parts", f"= {held.parts} is more than the {shards} shards that they hold")
    for name in app.indexes:
        if name not in (table or ()):
            top.wrong(
                f"indexes.{name}",
                f"is missing: app {app.name} has that index, and nobody would hold it",
            )
    return found


def _served(top: Table, key: str, port: int, app: App) -> Served | None:
    table = top.table(key, Served.__struct_fields__)
    if table is None:
        return None
    if key == "gateway" and not app.endpoints:
        table.wrong("", f"has nothing to serve: app {app.name} has no endpoints; leave it out")
    return Served(
        port=table.get("port", fields.whole(1, 65535), port),
        replicas=table.get("replicas", fields.whole(1), 1),
        options=table.get("options", fields.texts, fields.NONE),
        cpu=table.get("cpu", fields.optional(fields.cpu), None),
        memory=table.get("memory", fields.optional(fields.size), None),
    )


def _models(top: Table, app: App) -> dict[str, str]:
    table = top.table("models")
    if table is None:
        return {}
    pairs = followed(app)
    found = {}
    for model in table:
        aliases = table.table(model)
        assert aliases is not None
        for alias in aliases:
            if (model, alias) not in pairs:
                has = ", ".join(f"{one}.{other}" for one, other in pairs) or "none"
                aliases.wrong(alias, f"is an alias that nothing in the app follows; it has {has}")
            version = aliases.get(alias, _version, "")
            found[f"{model}@{alias}"] = version
    return found


def _version(value: Any) -> str:
    if isinstance(value, bool) or not str(value).isdigit():
        raise ValueError('is a version of the model, such as "2"')
    return str(value)


def _triton(top: Table, target: str) -> Triton | None:
    found = _over(
        *(top, "triton", Triton()),
        image=fields.text,
        replicas=fields.whole(1),
        gpus=fields.whole(0),
        models=fields.text,
    )
    return None if target == "local" else found  # there `mqinfer up` serves them


def _k8s(top: Table) -> Cluster:
    usual = Cluster()
    found = _over(
        *(top, "k8s", usual),
        namespace=fields.text,
        secret=fields.text,
        nats_monitor=fields.text,
        nats_account=fields.text,
        monitor=fields.flag,
        monitor_labels=fields.labels,
        prometheus=fields.text,
    )
    return found or usual


def _alerts(top: Table) -> Thresholds:
    usual = Thresholds()
    found = _over(
        *(top, "alerts", usual),
        behind=fields.seconds,
        failing=fields.part,
        slow=fields.part,
        dead_letters=fields.whole(0),
        labels=fields.labels,
    )
    return found or usual


def _over(top: Table, key: str, usual: S, **read: Callable[[Any], object]) -> S | None:
    """What is usual with what a table says instead; None where there is no such table."""
    table = top.table(key, usual.__struct_fields__)
    if table is None:
        return None
    said = {name: table.get(name, how, getattr(usual, name)) for name, how in read.items()}
    return replace(usual, **said)
