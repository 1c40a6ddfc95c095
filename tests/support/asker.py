"""A process that asks, and dies at one of its steps: `python -m tests.support.asker FIRST LAST`.

Each request has a key of its own, so that the next process asks the same again. It prints lines of
`asked <number> <id>`.
"""

from __future__ import annotations

import asyncio
import sys

import mqinfer
from tests.support.requests_app import Photo, app


async def main(first: int, last: int) -> None:
    """Ask for every number."""
    async with mqinfer.connect(app) as client:
        for n in range(first, last):
            request = await client.request(Photo(n), key=f"n{n}")
            print("asked", n, request.id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
