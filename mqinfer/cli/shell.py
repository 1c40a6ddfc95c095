"""`mqinfer shell`: a prompt that awaits, with an app's client, models and tables."""

from __future__ import annotations

import ast
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.prompt import AWAITS, prompt, run
from mqinfer.errors import ConfigurationError, MqinferError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Row
    from mqinfer.ports import Database
    from mqinfer.settings import Settings

_BANNER = """{app} on {nats}. There is what its module names, and
  client     await client.publish(...), client.request(...), client.state(...)
  models     await models["NAME"](x=array)
  tables     await tables.rows(Kind, 20), await tables("SELECT ...")
  app, settings"""


def shell(
    app: options.AppName,
    *,
    command: Annotated[
        str | None,
        typer.Option("--command", "-c", metavar="CODE", help="Run this, print its value, and end."),
    ] = None,
    servers: options.Process,
) -> None:
    r"""Open a prompt where `await` works, with an app's client, models and tables.

    IPython where it is installed, else Python's own. What the app's module names is there, too.

    \b
      mqinfer shell plants:app
      mqinfer shell plants:app -c 'await tables.rows(Grade)'
      mqinfer shell plants:app -c 'await client.publish(Photo("p1"))'
    """
    settings = options.load_settings(**asdict(servers))
    options.quiet_logging(settings)
    loaded = load_app(app)
    module = sys.modules.get(app.partition(":")[0])  # none of a models.toml
    named = {} if module is None else vars(module)
    names = {name: value for name, value in named.items() if not name.startswith("__")}
    if command is not None:
        _show(interrupt.run(_one(loaded, settings, names, command)))
        return
    banner = _BANNER.format(app=loaded.name, nats=settings.nats_url)
    prompt(lambda: opened(loaded, settings, names), banner)


class Tables:
    """What ClickHouse has."""

    def __init__(self, db: Database):
        self._db = db

    async def __call__(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a query; `{name:Type}` in it takes a parameter."""
        return await self._db.query(sql, parameters)

    async def rows(self, kind: type[Row], limit: int = 20) -> list[dict[str, Any]]:
        """The newest rows of a type, the latest first."""
        from mqinfer.tables.columns import columns_of
        from mqinfer.tables.sql import quoted
        from mqinfer.tables.tables import schema_of

        columns = ", ".join(quoted(column.name) for column in columns_of(kind))
        return await self._db.query(
            f"SELECT {columns} FROM {quoted(schema_of(kind).name)} "
            f"ORDER BY _published DESC LIMIT {int(limit)}"
        )


@asynccontextmanager
async def opened(
    app: App, settings: Settings, names: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """What a prompt knows, while the connections are open.

    Args:
        app: whose.
        settings: addresses.
        names: of the app's module.
    """
    import mqinfer
    from mqinfer import wiring

    db = wiring.clickhouse(settings)
    try:
        async with mqinfer.connect(app, settings) as client:
            models = {name: client.model(name) for name in app.models}
            yield names | {
                "app": app,
                "client": client,
                "models": models,
                "settings": settings,
                "tables": Tables(db),
            }
    finally:
        await db.close()


async def _one(app: App, settings: Settings, names: dict[str, Any], source: str) -> Any:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ConfigurationError(f"--command: {error}") from None
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    else:
        last = None
    async with opened(app, settings, names) as known:
        try:
            await run(compile(tree, "-c", "exec", flags=AWAITS), known)
            if last is None:
                return None
            return await run(compile(ast.Expression(last.value), "-c", "eval", flags=AWAITS), known)
        except MqinferError:
            raise
        except Exception as error:
            raise MqinferError(f"{type(error).__name__}: {error}") from error


def _show(value: Any) -> None:
    if value is not None:
        from pprint import pp

        pp(value, width=100)
