"""What is a little old is shown while it is made anew; what is too old is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mqinfer.console.looks import Look
from mqinfer.testing import until


async def test_nobody_waits_for_what_is_renewed() -> None:
    now, made, gate = [0.0], [0], asyncio.Event()
    gate.set()

    async def make() -> Mapping[str, Any]:
        await gate.wait()
        made[0] += 1
        return {"number": made[0]}

    async with asyncio.TaskGroup() as group:
        look = Look(make, 10.0, group, lambda: now[0])
        assert (await look.soon(60.0)).state == {"number": 1}
        now[0] = 9.0
        assert (await look.soon(60.0)).state == {"number": 1}
        gate.clear()
        now[0] = 11.0
        assert (await look.soon(60.0)).state == {"number": 1}  # and another one is begun
        assert (await look.soon(60.0)).state == {"number": 1}
        gate.set()
        await until(lambda: made[0] == 2)
        assert (await look.soon(60.0)).state == {"number": 2}
        now[0] = 100.0
        assert (await look.soon(60.0)).state == {"number": 3}
