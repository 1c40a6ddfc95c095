"""streams: thousands of clients who wait in one gateway for the events of a request of their own.

What is done, and how every event of every client is looked at, is `tests.gateway.many`'s.
"""

from __future__ import annotations

from benchmarks.results import Figure, Goal, Options, Result, Row
from tests.gateway.many import many

CLIENTS, MOST_MB = 10_000, 500.0


async def measure(options: Options) -> Result:
    """Once: it takes some minutes."""
    clients = options.amount(CLIENTS)
    options.say(f"{clients:,} clients open their streams")
    facts = await many(clients, idle=20.0 * min(1.0, options.scale))
    columns = {
        "open_mb": ("gateway, all wait", "MB"),
        "peak_mb": ("when all were answered", "MB"),
        "kb_each": ("a client", "kB"),
        "open_seconds": ("to open all", "s"),
        "answer_seconds": ("to answer all", "s"),
        "idle_cpu": ("of a core while all wait", ""),
    }
    figures = {name: Figure((float(facts[fact]),), unit) for fact, (name, unit) in columns.items()}
    return Result(
        "streams",
        f"{clients:,} clients of server-sent events in one gateway",
        [Row("mqinfer gateway", figures)],
        [
            Goal("MB of the gateway, all waiting", facts["open_mb"], MOST_MB, at_most=True),
            Goal("of the clients had all of their events", facts["answered"] / clients, 1.0),
        ],
        ["Once. The memory is the process's own (USS). " + " ".join(facts["wrong"])],
    )
