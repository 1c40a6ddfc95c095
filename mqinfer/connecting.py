"""Connecting: what `mqinfer.connect` gives, which says what is missing where it is not entered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from mqinfer.app import App
from mqinfer.errors import ConfigurationError, NotConnected

if TYPE_CHECKING:
    from mqinfer.settings import Settings

_HOW = "write `async with mqinfer.connect(app) as client:`, and use the client inside"


def an_app(given: object, where: str) -> App:
    """What was given, where it is an app.

    Args:
        given: to `where`.
        where: for the text.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(given, App):
        return given
    raise ConfigurationError(
        f"{where} takes the App itself, not a {type(given).__name__}: `from words import app`, "
        "where words is the module that has it"
    )


class Connecting(AbstractAsyncContextManager[Any]):
    """A client that is not connected yet; `async with` connects it.

    Args:
        app: the app.
        settings: None reads the environment.
        opened: connects.

    Raises:
        ConfigurationError: what was given is no app.
    """

    def __init__(
        self,
        app: App,
        settings: Settings | None,
        opened: Callable[[App, Settings | None], AbstractAsyncContextManager[Any]],
    ):
        self._opening = opened(an_app(app, "mqinfer.connect"), settings)

    async def __aenter__(self) -> Any:
        """Connect."""
        return await self._opening.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Disconnect."""
        return await self._opening.__aexit__(kind, error, traceback)

    def __getattr__(self, name: str) -> Any:
        """Refuse what only the client has.

        Raises:
            AttributeError: saying how to come by the client.
        """
        raise AttributeError(f"{name!r} is asked of a client that is not connected: {_HOW}")

    def __await__(self) -> Generator[Any, None, NoReturn]:
        """Refuse `await mqinfer.connect(app)`.

        Raises:
            NotConnected: saying how it is written.
        """
        raise NotConnected(f"mqinfer.connect(app) is not awaited: {_HOW}")

    def __enter__(self) -> NoReturn:
        """Refuse `with`, which cannot wait.

        Raises:
            NotConnected: saying how it is written.
        """
        raise NotConnected(f"mqinfer.connect(app) is entered in a coroutine: {_HOW}")

    def __exit__(self, *_: object) -> None:
        """Nothing was entered."""
