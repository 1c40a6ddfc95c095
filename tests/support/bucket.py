"""A bucket in this process."""

from __future__ import annotations

from mqinfer.bucket import PutDone


class Memory:
    """A bucket in this process; `quicker` others get in before each write."""

    def __init__(self, quicker: int = 0) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.quicker = quicker
        self.writes = 0

    async def ensure(self) -> None:
        """There is one."""

    async def load(self, key: str) -> tuple[bytes, int] | None:
        return self.values.get(key)

    async def save(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        if self.quicker:
            self.quicker -= 1
            self._write(key, b"%d" % (int(self.values.get(key, (b"", 0))[0] or b"0") + 100))
        if self.values.get(key, (b"", 0))[1] != revision:
            return 0
        self.writes += 1
        self._write(key, value)
        return self.values[key][1]

    def put(
        self, key: str, value: bytes, revision: int, done: PutDone, *, ttl: float | None = None
    ) -> None:
        if self.values.get(key, (b"", 0))[1] != revision:
            done(None, None)
            return
        self.writes += 1
        self._write(key, value)
        done(self.values[key][1], None)

    async def delete(self, key: str, revision: int) -> bool:
        return bool(await self.save(key, b"", revision))

    async def names(self) -> list[str]:
        return sorted(self.values)

    def _write(self, key: str, value: bytes) -> None:
        self.values[key] = (value, self.values.get(key, (b"", 0))[1] + 1)
