"""Models: which are used where, what is served, and which rows came from which version.

Three servers know a part each; one that is away leaves its part unknown, and the rest is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mqinfer.errors import ConfigurationError
from mqinfer.tables.sql import quoted
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    import datetime

    from mqinfer.app import App
    from mqinfer.inference.aliases import Alias
    from mqinfer.ports import Database, ModelVersion


@dataclass(frozen=True, slots=True)
class Use:
    """How stages ask for a model.

    Attributes:
        model: its name.
        stages: that ask for it so; none for a handle that no handler's code shows.
        alias: that is followed, or None.
        version: that is pinned (with an alias: while that is not set); None is the latest.
        named: the version that the alias names; None where it is not set, or not known.
        set: when the alias was set.
        known: whether it is known what the alias names.
    """

    model: str
    stages: tuple[str, ...]
    alias: str | None
    version: str | None
    named: str | None = None
    set: datetime.datetime | None = None
    known: bool = True

    @property
    def follows(self) -> str:
        """In words."""
        else_ = "latest" if self.version is None else f"pinned {self.version}"
        if self.alias is None:
            return else_
        if not self.known:
            return f"alias {self.alias} -> not known"
        if self.named is None:
            return f"alias {self.alias}, not set: {else_}"
        return f"alias {self.alias} -> {self.named}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"follows": self.follows}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table that a version of a model had a part in.

    Attributes:
        table: its name.
        model: that answered on the way to the row.
        version: of it.
        run: the replay run, "" for live.
        rows: that there are.
        shown: those that the table shows.
    """

    table: str
    model: str
    version: str
    run: str
    rows: int
    shown: int


def uses(app: App, aliases: Mapping[tuple[str, str], Alias] | None) -> list[Use]:
    """How the app asks for its models, by name.

    Args:
        app: the app.
        aliases: those that are set, by model and name; None where that is not known.
    """
    stages: dict[tuple[str, str | None, str | None], list[str]] = {
        (model.name, model.alias, model.version): [] for model in app.models.values()
    }
    for stage in app.stages.values():
        for model in stage.models:
            stages.setdefault((model.name, model.alias, model.version), []).append(stage.name)
    found = []
    for (name, alias, version), users in stages.items():
        named = None if alias is None or aliases is None else aliases.get((name, alias))
        found.append(
            Use(
                model=name,
                stages=tuple(users),
                alias=alias,
                version=version,
                named=named.version if named else None,
                set=named.set if named else None,
                known=alias is None or aliases is not None,
            )
        )
    return sorted(found, key=lambda use: (use.model, use.alias or "", use.version or ""))


async def rows(app: App, db: Database) -> list[Rows]:
    """How many rows of each table came from which version; a table that is not there has none.

    Raises:
        Unavailable: ClickHouse does not answer.
        TableError: it refused the question.
    """
    found: list[Rows] = []
    there = await db.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
    names = {str(one["name"]) for one in there}
    for table, row in app.rows.items():
        schema = schema_of(row)
        if schema.storage not in names:
            continue
        counted = await db.query(
            "SELECT pair.1 AS model, pair.2 AS version, toString(_run) AS run, count() AS rows, "
            "countIf(_visible = 1) AS shown FROM (SELECT _run, _visible, "
            "arrayJoin(arrayZip(mapKeys(_models), mapValues(_models))) AS pair "
            f"FROM {quoted(schema.storage)} FINAL) GROUP BY model, version, run "
            "ORDER BY model, length(version), version, run"
        )
        found += [Rows(table=table, **one) for one in counted]
    return found


def require_served(model: str, version: str, versions: Sequence[ModelVersion], forced: str) -> None:
    """Refuse a version that does not answer.

    Args:
        model: its name.
        version: that is wanted.
        versions: what Triton has.
        forced: what `--force` does instead, for the text.

    Raises:
        ConfigurationError: it is not served; the text says what is.
    """
    ours = [one for one in versions if one.model == model]
    found = next((one for one in ours if one.version == version), None)
    if found is not None and found.ready:
        return
    why = f" ({found.reason})" if found is not None else ""
    served = ", ".join(one.version for one in ours if one.ready) or "none"
    raise ConfigurationError(
        f"Triton does not serve version {version} of {model}{why}; it serves: {served} "
        f"(--force {forced})"
    )
