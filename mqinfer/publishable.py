"""Publishable: whether what a client was given is a message, and whether the app reads its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.errors import EncodeError
from mqinfer.message import Message

if TYPE_CHECKING:
    from mqinfer.app import App

log = structlog.get_logger("mqinfer.client")


def meet(app: App, given: Any) -> type[Message]:
    """The type of the first message of it that a client publishes.

    A type that no stage has anything to do with is told, and published: the stages may be declared
    elsewhere, and the stream keeps it for whoever reads it later.

    Raises:
        EncodeError: it is no message.
    """
    kind = type(given)
    if isinstance(given, type) and issubclass(given, Message):
        raise EncodeError(
            f"publish takes a message, and {given.__name__} is a type of messages: publish "
            f"{given.__name__}(...)"
        )
    if getattr(kind, "__mqinfer__", None) is None:
        several = isinstance(given, (list, tuple)) and any(
            isinstance(one, Message) for one in given
        )
        advice = "publish_all takes several" if several else "make one of a type of the app"
        raise EncodeError(f"publish takes a message, not a {kind.__name__}: {advice}")
    if app.stages and kind not in app.messages:
        known = ", ".join(each.__name__ for each in app.messages)
        log.warning(
            "published, and no stage of the app reads it",
            type=kind.__name__,
            subject=app.subject(kind),
            app=app.name,
            advice=f"declare a stage for it, unless one is elsewhere; the app knows {known}",
        )
    return kind
