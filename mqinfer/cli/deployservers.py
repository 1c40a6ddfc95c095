"""What ClickHouse and Triton have, for `mqinfer deploy`: asked once, and not waited for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.live import Servers
    from mqinfer.settings import Settings

_SECONDS: Final = 10.0


async def servers(app: App, settings: Settings, target: str, *, models: bool) -> Servers:
    """What they have.

    A target elsewhere has servers elsewhere: they are asked only where the environment of whoever
    deploys says where they are.

    Args:
        app: that is deployed.
        settings: of the servers.
        target: local, compose or k8s.
        models: whether versions of models are set.
    """
    from mqinfer.deploy.live import Servers

    silent: list[str] = []

    def asks(name: str) -> bool:
        return target == "local" or f"MQINFER_{name}_URL" in os.environ

    conflicts: Mapping[str, Sequence[str]] = {}
    if app.rows and asks("CLICKHOUSE"):
        try:
            async with asyncio.timeout(_SECONDS):
                conflicts = await _conflicts(app, settings)
        except (MqinferError, TimeoutError) as error:
            silent.append(f"ClickHouse: tables are not looked at: {_why(error)}")
    served = None
    if models and asks("TRITON"):
        try:
            async with asyncio.timeout(_SECONDS):
                served = await _served(settings)
        except (MqinferError, TimeoutError) as error:
            silent.append(f"Triton: versions of models are not looked at: {_why(error)}")
    return Servers(conflicts, served, tuple(silent))


def _why(error: BaseException) -> str:
    return str(error) or f"it has not answered in {_SECONDS:g} s"


async def _conflicts(app: App, settings: Settings) -> dict[str, list[str]]:
    from mqinfer import wiring
    from mqinfer.tables.foresee import foresee

    async with AsyncExitStack() as stack:
        database = wiring.clickhouse(settings)
        stack.push_async_callback(database.close)
        await database.ping()
        found = {
            name: (await foresee(database, row, app.name)).conflicts
            for name, row in app.rows.items()
        }
    return {name: told for name, told in found.items() if told}


async def _served(settings: Settings) -> dict[str, list[str]]:
    from mqinfer.cli.served import asked_triton

    found: dict[str, list[str]] = {}
    for one in await asked_triton(settings):
        if one.ready:
            found.setdefault(one.model, []).append(one.version)
    return found
