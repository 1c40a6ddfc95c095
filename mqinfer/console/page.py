"""Page: what one page is: its name, what it looks at, and what can be done on it.

A page is a module of `mqinfer.console.pages` with a `PAGE`, and the template of its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.app import App
    from mqinfer.console.site import Site

_LONGEST = 300  # characters of a filter


class Chosen(dict[str, str]):
    """The filters of an address; one that it has not is ""."""

    def __missing__(self, name: str) -> str:
        """Nothing is put in."""
        return ""


Filters = Mapping[str, str]
Form = Mapping[str, list[str]]
Looking = Callable[["Site", Filters], Awaitable[Mapping[str, Any]]]
Part = Callable[["Site", "Request"], Awaitable["Response"]]
Action = Callable[["Site", "Request", Form], Awaitable["Response"]]


def _always(_: App) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        name: its address is `/name`, its template `name.html`.
        title: in the navigation, and above it.
        look: what it shows, for its filters: the values of its template. It is asked once for all
            who have the same filters; what it raises of `mqinfer.errors` is shown.
        filters: parameters of its address.
        every: seconds between looks.
        parts: GET `/name/<part>`: more of it, on demand.
        actions: POST `/name/<action>`: what can be done; who may is checked before.
        shown: whether an app has it.
    """

    name: str
    title: str
    look: Looking
    filters: tuple[str, ...] = ()
    every: float = 1.0
    parts: Mapping[str, Part] = field(default_factory=dict)
    actions: Mapping[str, Action] = field(default_factory=dict)
    shown: Callable[[App], bool] = _always

    def chosen(self, request: Request) -> Filters:
        """The filters that an address has; what is no filter, or empty, is left out."""
        found = {name: request.query_params.get(name, "") for name in self.filters}
        return Chosen({name: text[:_LONGEST] for name, text in found.items() if text.strip()})


def one_of(filters: Filters, name: str, known: Iterable[str]) -> str | None:
    """A filter that says one of few things; None where it is not set.

    Raises:
        ConfigurationError: it says none of them.
    """
    text, known = filters.get(name), list(known)
    if text is not None and text not in known:
        raise ConfigurationError(f"there is no {name} {text[:60]!r}; one of: {', '.join(known)}")
    return text


def place_of_list(text: str) -> int | None:
    """Where a page of a list begins; None at its beginning.

    Raises:
        ConfigurationError: it is no number.
    """
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigurationError(f"{text[:60]!r} is no place in the list")
    return int(text) if text else None


def of_form(form: Form, name: str) -> str:
    """The one value that a form has of a name, or ""."""
    return (form.get(name) or [""])[0]
