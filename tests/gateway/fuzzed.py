"""schemathesis against a gateway with a worker: does it do what its OpenAPI document says?

    python -m tests.gateway.fuzzed --examples 1000 --seed 1

It makes requests that the document allows, and such as it does not, in all phases (examples,
coverage, fuzzing, and stateful: what one answer leads to), and holds the answers against it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.testing import nats_only
from tests.gateway.test_processes import APP, gateway, process

HERE = Path(__file__).parent


async def fuzz(nats: Settings, examples: int, seed: int, folder: Path) -> tuple[int, str]:
    """Run it; its exit code, 0 where it finds nothing, and what it says.

    Args:
        nats: where the gateway and the worker are.
        examples: of each operation, in each phase.
        seed: of what is random.
        folder: that it works in.
    """
    async with gateway(nats) as (_, http):
        with process(nats, "worker", APP):
            running = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "schemathesis.cli",
                "--config-file", str(HERE / "schemathesis.toml"),
                "run", f"{str(http.base_url).rstrip('/')}/openapi.json",
                "--max-examples", str(examples), "--seed", str(seed),
                "--request-timeout", "60", "--no-color",
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                said, _ = await running.communicate()
            finally:
                if running.returncode is None:
                    running.kill()
                    await running.wait()
        assert (await http.get("/readyz")).status_code == 200
        return await running.wait(), said.decode()


async def _main(examples: int, seed: int) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with nats_only(Path(folder) / "nats") as settings:
            code, said = await fuzz(settings, examples, seed, Path(folder))
    print(said)
    print(f"{time.monotonic() - began:.0f} s, seed {seed}")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    # As Ctrl-C does: what it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(asyncio.run(_main(asked.examples, asked.seed)))
