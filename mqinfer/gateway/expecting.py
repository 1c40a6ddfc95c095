"""Expecting: clients that ask before they send a body (`Expect: 100-continue`, RFC 9110, 10.1.1).

uvicorn says `100 Continue` once somebody reads the body, so that one which is refused before is not
sent. But whether a client that is answered without it sends its body all the same nobody can tell:
what comes next on the connection might be taken for another request, and so it is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSE = (b"connection", b"close")


def closing(served: ASGIApp) -> ASGIApp:
    """Close a connection whose client asked, and was answered before its body was wanted."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or all(name != b"expect" for name, _ in scope["headers"]):
            await served(scope, receive, send)
            return
        wanted = False

        async def reading() -> Message:
            nonlocal wanted
            wanted = True
            return await receive()

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start" and not wanted:
                headers = [*message.get("headers", ())]
                if _CLOSE not in headers:
                    message = {**message, "headers": [*headers, _CLOSE]}
            await send(message)

        await served(scope, reading, answering)

    return application
