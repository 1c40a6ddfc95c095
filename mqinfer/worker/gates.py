"""Gates: what may keep a task from pulling: a server that is away, a stage that is behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.tables.intotable import IntoTable

if TYPE_CHECKING:
    from mqinfer.flow.emitter import Emitter
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.intake import Gate
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Binding, Work


def gates(
    work: Work,
    services: Services,
    task: plan.Task,
    binding: Binding,
    handling: Handling,
    emitter: Emitter,
) -> list[Gate]:
    """What may keep a task from pulling.

    Args:
        work: of the worker.
        services: connections.
        task: the stage or sink.
        binding: of the task.
        handling: of its messages.
        emitter: of its outputs.
    """
    broker, inference = services.broker, services.inference
    found: list[Gate] = [lambda: broker.blocked]
    if isinstance(handling, IntoTable):
        found.append(lambda: handling.blocked)
    # A shadow does not wait for its model: it passes over what it cannot answer in time.
    models = task.stage.models if task.stage is not None and binding.aside is None else ()
    if models and inference is not None:
        found.append(lambda: inference.blocked(models))
    limit = task.limits.max_downstream
    readers = plan.ahead(work.app, task)
    if limit is not None and readers:

        def behind() -> str | None:
            for reader in readers:
                waiting = work.waiting.get(reader.name, 0)
                what = "messages wait"
                if packs := work.packs.get(reader.name, 0):
                    # The server counts packs. Most that wait are as those that are written now.
                    waiting += round(packs * (emitter.rows_a_pack(reader.reads) - 1))
                    what = "rows or so wait"
                if waiting > limit:
                    return f"{waiting:,} {what} for {reader.name} (max_downstream={limit:,})"
            return None

        found.append(behind)
    return found
