"""Entry: who may look, and who may act.

A browser has a cookie that says that it once told the token: a signature with an end, so that no
replica needs to remember it. It is SameSite=Strict, so that no page of another origin makes a
browser send it; and what acts must come from a page of ours, which browsers say in `Origin`.
Programs send the token itself, `Authorization: Bearer TOKEN`, which no page can.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING, Final

from mqinfer.web import signing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.console.options import Options

LASTS: Final = 12 * 3600.0  # seconds that a cookie opens
_WAIT: Final = 0.2  # seconds that a wrong token costs


class Entry:
    """Who may look at the console of one app, and act.

    Args:
        app: its name.
        options: of the console.

    Attributes:
        token: that opens.
        wait: seconds to wait before a wrong token is refused.
    """

    def __init__(self, app: str, options: Options):
        self.token = options.token or secrets.token_urlsafe(24)
        self.wait = _WAIT
        self._to_look = not options.local
        self._read_only = options.read_only
        self._secure = options.tls_cert is not None
        self._what = f"console {app}"
        self._cookie = f"mqinfer-console-{app}"

    def right(self, token: str) -> bool:
        """Whether a token is ours."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def admit(self, response: Response) -> Response:
        """An answer that lets its browser in from now on."""
        until = time.time() + LASTS
        ticket = signing.sign(self.token, self._what, "", until)
        response.set_cookie(
            self._cookie,
            ticket,
            max_age=int(LASTS),
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )
        return response

    def may_look(self, request: Request) -> bool:
        """Whether somebody may be shown anything."""
        return not self._to_look or self._known(request)

    def can_act(self, request: Request) -> bool:
        """Whether somebody is shown what can be done."""
        return not self._read_only and self._known(request)

    def refusal(self, request: Request) -> str | None:
        """Why somebody may not act, and what to do; None: they may."""
        if self._read_only:
            return "this console only shows: it was started with --read-only"
        if self._bearer(request):
            return None
        if not self._known(request):
            return "this needs the token of the console"
        origin = request.headers.get("origin")
        if origin is None or origin.partition("://")[2] != request.headers.get("host"):
            return "only a page of this console can ask for that"
        return None

    def asks(self, request: Request) -> bool:
        """Whether somebody who cannot act could with the token."""
        return not self._read_only and not self._known(request)

    def hint(self, request: Request) -> str | None:
        """Why nothing can be done, for a line on the page; None where it can."""
        if self._read_only:
            return "read only"
        return None if self._known(request) else "looking only"

    def _known(self, request: Request) -> bool:
        ticket = request.cookies.get(self._cookie, "")
        found = signing.opened(self.token, self._what, ticket, time.time())
        return found is not None or self._bearer(request)

    def _bearer(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.right(given.strip())
