"""Aside: a program in a process of its own, which ends with whoever waits for it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

_SAID = 500  # characters of what a program that failed had to say


async def run(program: Path, *words: str) -> bytes:
    """What a Python file prints.

    Unlike a call in a thread it keeps no lock of this process, so that its event loop goes on; and
    cancelling it, as when nobody wants the answer any more, ends the work.

    Args:
        program: a file that needs the standard library alone, and ends at the end of its input.
        words: its arguments.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(program), *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        # Not `communicate`, which may close the input: that is what the program ends by.
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        said = err.decode(errors="replace").strip()[-_SAID:]
        raise RuntimeError(f"{program.name} ended with {code}: {said}")
    return out
