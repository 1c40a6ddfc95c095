"""Local: groups of processes for our own supervisor, and units for systemd.

`processes.json` is what a supervisor runs: it looks at the file, and brings its processes to what
that says. Units are for those who leave that to systemd; a group of workers is one unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mqinfer import plan
from mqinfer.deploy.targets import observed
from mqinfer.supervise.group import Group
from mqinfer.supervise.scaling import Bounds

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.deployment import Workers
    from mqinfer.deploy.processes import Plan

FILE = "processes.json"
_ONE = Bounds()


def groups(planned: Plan, app: App) -> list[Group]:
    """What a supervisor runs."""
    environ = tuple(planned.environ().items())
    found = [
        Group(
            name=f"worker-{name}",
            arguments=tuple(planned.worker(group)),
            bounds=group.bounds,
            environ=environ,
            stages=group.stages,
            consumers=plan.backlog(app, group.stages),
            revision=planned.revision(group),
        )
        for name, group in planned.deployment.workers.items()
    ]
    for name, held in planned.deployment.indexes.items():
        found += [
            Group(
                name=f"index-{name}-{part}",
                arguments=tuple(planned.index(name, held, part)),
                bounds=Bounds(held.replicas, held.replicas),
                environ=environ,
                holds=True,
                revision=planned.index_revision(name),
            )
            for part in range(1, held.parts + 1)
        ]
    host, revision = "127.0.0.1", planned.revision()
    if (gateway := planned.deployment.gateway) is not None:
        command = tuple(planned.gateway(gateway, host))
        found.append(
            Group("gateway", command, _ONE, environ=environ, alone=True, revision=revision)
        )
    if (console := planned.deployment.console) is not None:
        command = tuple(planned.console(console, host))
        found.append(
            Group("console", command, _ONE, environ=environ, alone=True, revision=revision)
        )
    return found


def read(text: bytes) -> list[Group]:
    """The groups in a `processes.json`.

    Raises:
        msgspec.MsgspecError: it holds none.
    """
    return msgspec.json.decode(text, type=list[Group])


def render(planned: Plan, app: App) -> dict[str, str]:
    """The files by name."""
    made = groups(planned, app)
    facts = msgspec.json.format(msgspec.json.encode(made), indent=2).decode()
    files = {FILE: facts + "\n"}
    workers = planned.deployment.workers
    names = []
    for group in made:
        command = list(group.arguments)
        own = workers.get(group.name.removeprefix("worker-")) if group.stages else None
        if own is not None:
            command += processes_options(own)
        units = [group.name]
        if group.holds and group.bounds.least > 1:  # a replica is a unit
            units = [f"{group.name}-{replica + 1}" for replica in range(group.bounds.least)]
        for unit in units:
            name = f"{planned.app}-{unit}.service"
            names.append(name)
            files[f"systemd/{name}"] = _unit(planned, unit, command, own)
    files[f"systemd/{planned.app}.target"] = (
        f"# Made by `mqinfer deploy render`.\n[Unit]\nDescription=mqinfer: app {planned.app}\n"
        f"Wants={' '.join(names)}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    return files | observed.files(planned, app)


def processes_options(group: Workers) -> list[str]:
    """How many processes `mqinfer worker` is to have."""
    if group.least == group.most:
        return [f"--processes={group.most}"]
    rules = f"target={group.target:g}s,backlog={group.backlog},cooldown={group.cooldown:g}s"
    return [f"--processes={group.least}..{group.most}", f"--scale={rules}"]


def _unit(planned: Plan, name: str, command: list[str], group: Workers | None) -> str:
    settings = "".join(
        f'Environment="{key}={_escaped(value)}"\n' for key, value in planned.environ().items()
    )
    secrets = ", ".join(planned.secrets())
    if secrets:
        settings += f"# This file has {secrets}.\n"
    settings += f"EnvironmentFile={'' if secrets else '-'}/etc/mqinfer/{planned.app}.env\n"
    memory = f"MemoryMax={group.memory * group.most}\n" if group and group.memory else ""
    cpu = f"CPUQuota={group.cpu * group.most * 100:.0f}%\n" if group and group.cpu else ""
    return f"""\
# Made by `mqinfer deploy render`: change deploy.toml, and make it anew.
[Unit]
Description=mqinfer: {name} of app {planned.app}
After=network-online.target
Wants=network-online.target
PartOf={planned.app}.target

[Service]
# The folder that holds the app, and an environment that has mqinfer.
WorkingDirectory=/srv/{planned.app}
{settings}\
ExecStart=/srv/{planned.app}/venv/bin/mqinfer {" ".join(_quoted(one) for one in command)}
User=mqinfer
# Told once, it finishes what it has; its own processes are its business.
KillMode=mixed
TimeoutStopSec={planned.grace + 5}
Restart=always
RestartSec=2
# The command line, a setting or a declaration has to be changed first.
RestartPreventExitStatus=2
NoNewPrivileges=true
ProtectSystem=full
PrivateTmp=true
{memory}{cpu}
[Install]
WantedBy={planned.app}.target
"""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _quoted(value: str) -> str:
    plain = value.replace("%", "%%").replace("$", "$$")
    return f'"{_escaped(value)}"' if any(mark in value for mark in " \"'\\;") else plain
