"""Addresses: several Triton servers looked at one by one; those that are used as one hide this."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mqinfer.errors import ModelUnavailable, MqinferError
from mqinfer.ports import InferenceServer

if TYPE_CHECKING:
    from mqinfer.operate.check import Report
    from mqinfer.stage import Stage


async def check_addresses(
    stages: Mapping[str, Stage], servers: Mapping[str, InferenceServer], report: Report
) -> None:
    """Whether each server answers, and which of the models that stages use it has.

    A model that is not everywhere is no problem: it is asked for where it is.

    Args:
        stages: to look at.
        servers: by address.
        report: gets a line for each.
    """
    wanted = sorted({model.name for stage in stages.values() for model in stage.models})
    lines = await asyncio.gather(*(_look(server, wanted) for server in servers.values()))
    for address, line in zip(servers, lines, strict=True):
        if isinstance(line, MqinferError):
            report.server(f"Triton at {address}", line, [])
        else:
            report.checked.append(f"Triton at {address}: {line}")


async def _look(server: InferenceServer, wanted: list[str]) -> str | MqinferError:
    """The models that a server has, in words; or why it does not answer."""
    has, lacks = [], []
    try:
        await server.ready()
        for name in wanted:
            try:
                await server.describe(name)
            except ModelUnavailable:
                lacks.append(name)
            else:
                has.append(name)
    except MqinferError as error:
        return error
    return f"has {', '.join(has) or 'none'}" + (f", lacks {', '.join(lacks)}" if lacks else "")
