"""A process that dies at one of its steps: before it publishes, before it hears that something is
stored, or before it acknowledges.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from mqinfer.adapters.jetstream import JetStream


def dying(steps: int) -> Callable[[], None]:
    """This process dies at its step number `steps`; what is returned takes one more."""
    left = steps

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    publish, ack = JetStream.publish, JetStream.ack

    def publish_one(
        self: JetStream, subject: Any, header: bytes, payload: bytes, done: Any, **options: Any
    ) -> None:
        def stored(error: Exception | None, repeat: bool) -> None:
            step()
            done(error, repeat)

        step()
        publish(self, subject, header, payload, stored, **options)

    def ack_one(self: JetStream, delivery: Any) -> None:
        step()
        ack(self, delivery)

    JetStream.publish, JetStream.ack = publish_one, ack_one  # type: ignore[method-assign]
    return step
