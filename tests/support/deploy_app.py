"""An app to be deployed: stages, a table, an endpoint, an ordered type, a model with an alias."""

from __future__ import annotations

from typing import Any

from mqinfer import App, Message, Row


def make(
    name: str = "deployed",
    *,
    batch: int = 8,
    stages: str = "grade watch",
    columns: str = "label score",
    order: str = "label",
    deadline: str = "5m",
    shards: int = 0,
    filters: tuple[str, ...] = (),
    **options: Any,
) -> App:
    """The app, as one version of its code has it."""
    app = App(name, **{"partitions": 4, **options})
    model = app.model("grader", alias="live")

    class Photo(Message, subject="photo"):
        name: str

    class Seen(Message, subject="seen", key="name", ordered=True):
        name: str

    fields: dict[str, Any] = {"label": str, "score": float, "extra": int}
    wanted = {one: fields[one] for one in columns.split()}
    namespace = {
        "__annotations__": {"name": str, **wanted},
        "__module__": __name__,
        **({"extra": 0} if "extra" in wanted else {}),
    }
    graded = type(Row)("Graded", (Row,), namespace, table=f"graded_{name}", order_by=(order,))

    async def grade(photos: list[Photo]) -> None:
        await model(image=photos)

    async def keep(photo: Photo) -> None: ...

    async def watch(seen: Seen) -> None: ...

    async def old(photo: Photo) -> None: ...

    keep.__annotations__ = {"photo": Photo, "return": graded}
    grade.__annotations__ = {"photos": list[Photo], "return": None}
    watch.__annotations__ = {"seen": Seen, "return": None}
    old.__annotations__ = {"photo": Photo, "return": None}
    app.stage(batch_size=batch, models=[model])(grade)
    app.stage(keep)
    for one in stages.split():
        if one == "watch":
            app.stage(watch)
        elif one == "old":
            app.stage(old)
    if shards:

        class Vector(Message, subject="vector"):
            name: str
            vector: list[float]
            station: str = ""

        app.index("pictures", of=Vector, key="name", shards=shards, filters=filters)
    app.endpoint("ask", Photo, answers=graded, deadline=deadline)
    return app
