"""Webhooks: the end of a request told at an address, by a stage like any other.

    from mqinfer.gateway.webhooks import webhooks

    webhooks(app)  # in the app's module; `mqinfer worker APP -s webhooks` sends them alone

What is sent is signed as Standard Webhooks 1.0.0 has it, and has the same `webhook-id` however
often it is sent. An address that does not answer is tried again for two days; then there is a dead
letter, as for every message that nobody could handle.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mqinfer.backoff import Backoff
from mqinfer.context import Context
from mqinfer.errors import ConfigurationError, Reject, Retry
from mqinfer.requests import state as states
from mqinfer.requests.ended import RequestEnded
from mqinfer.settings import Settings

if TYPE_CHECKING:
    from mqinfer.app import App

TIMEOUT: Final = 15.0  # seconds that an address may take
ATTEMPTS: Final = 16
AGAIN: Final = Backoff(initial=5.0, factor=3.0, maximum=6 * 3600.0)  # two days in all
_LATER = 3600.0  # seconds that an address may ask to be left alone for


def webhooks(app: App, *, private: bool = False, backoff: Backoff = AGAIN) -> None:
    """Let requests of an app be told at addresses.

    Args:
        app: whose.
        private: whether an address may lead into a private network, over http too.
        backoff: the waits between attempts.
    """

    @asynccontextmanager
    async def session() -> AsyncIterator[Any]:
        import aiohttp

        from mqinfer.gateway.addresses import resolver

        secret = Settings.load().request_secret
        if not secret:
            raise ConfigurationError(
                "webhooks are signed: set MQINFER_REQUEST_SECRET, the same as of the gateways"
            )
        connector = aiohttp.TCPConnector(
            resolver=resolver(private=private), use_dns_cache=False, limit=64
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as opened:
            yield opened, secret

    @app.stage(
        name="webhooks", lifespan=session, attempts=ATTEMPTS, backoff=backoff, timeout=2 * TIMEOUT
    )
    async def tell(message: RequestEnded, ctx: Context) -> None:
        from mqinfer.gateway.addresses import refusal

        opened, secret = ctx.state
        if (why := refusal(message.url, private=private)) is not None:
            raise Reject(why)
        body = await _body(message)
        await _post(opened, message, body, signed(secret, message, body, time.time()))


def secret_of(secret: str, tenant: str) -> str:
    """The secret that a tenant checks signatures with, as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(_key(secret, tenant)).decode()}"


def signed(secret: str, message: RequestEnded, body: bytes, now: float) -> dict[str, str]:
    """The headers that go with a body."""
    moment = str(int(now))
    told = f"{message.id}.{moment}.".encode() + body
    mac = hmac.new(_key(secret, message.tenant), told, sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def _key(secret: str, tenant: str) -> bytes:
    return hmac.new(secret.encode(), f"webhook\0{tenant}".encode(), sha256).digest()


async def _body(message: RequestEnded) -> bytes:
    from mqinfer.gateway import views

    state = states.decode(message.state)
    answers = state.answers
    if message.answers is not None:
        answers = states.decode_answers(await message.answers.bytes())
    data = {**views.summary(state, None), **views.result(state, answers, None)}
    told = {"type": "request.ended", "timestamp": views.moment(state.ended), "data": data}
    return views.encode(told)


async def _post(session: Any, message: RequestEnded, body: bytes, headers: dict[str, str]) -> None:
    """Tell an address.

    Raises:
        Reject: it says that it is gone for good, or leads where nothing may be told.
        Retry: it did not take it; it is told again.
    """
    import aiohttp

    from mqinfer.gateway.addresses import NotPublic

    host = urlsplit(message.url).hostname
    try:
        async with session.post(
            message.url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            status, later = answer.status, answer.headers.get("retry-after", "")
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.__cause__ or error.os_error, NotPublic):
            raise Reject(f"{host} leads into a private network") from None
        raise Retry(f"{host} cannot be reached") from None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Retry(f"{host} was not told: {type(error).__name__}") from None
    if status == 410:
        raise Reject(f"{host} answers 410: it wants to be told nothing")
    if not 200 <= status < 300:
        if status in (429, 503) and later.isascii() and later.isdigit() and len(later) < 6:
            raise Retry(f"{host} answers {status}", after=min(float(later), _LATER))
        raise Retry(f"{host} answers {status}")
