"""Inputs: what was asked, as a message of the endpoint's type, whose blobs are the tenant's own.

A blob comes as its bytes, as a part of the body, as a path under the tenant's prefix, or as an
address that may be fetched from. Nobody can name a path of somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct, inspect

from mqinfer.blob import Blob
from mqinfer.blobfields import blob_values, can_hold_blobs
from mqinfer.codec import Codec, blobs_in
from mqinfer.errors import MqinferError
from mqinfer.gateway import validation
from mqinfer.gateway.addresses import refusal
from mqinfer.gateway.problems import Fault, Problem, invalid
from mqinfer.gateway.validation import Validation, pointer

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.endpoint import Endpoint
    from mqinfer.gateway.fetch import Fetch
    from mqinfer.gateway.tenants import Tenant
    from mqinfer.message import Message

MOST_URLS = 16  # in one body
_FETCHES = 4  # at once, for one body
MOST_PATHS = 256  # in one body
_LOOKS = 16  # at once, for one body


class Webhook(Struct, frozen=True, forbid_unknown_fields=True):
    """Where an answer is sent as well."""

    url: str


class Asked(Struct, forbid_unknown_fields=True):
    """The body that asks."""

    input: Raw
    webhook: Webhook | None = None


class Inputs:
    """Reads bodies.

    Args:
        validation: of the app's endpoints.
        store: of blobs.
        fetch: of addresses; None fetches none.
        webhooks: whether a stage tells addresses of the end of requests.
        private: whether addresses may be private.
    """

    def __init__(
        self,
        validation: Validation,
        store: BlobStore,
        fetch: Fetch | None = None,
        *,
        webhooks: bool = False,
        private: bool = False,
    ):
        self._validation = validation
        self._store = store
        self._fetch = fetch
        self._webhooks = webhooks
        self._private = private
        self._codec = Codec(store)
        self._asked = msgspec.json.Decoder(Asked).decode

    async def read(
        self, endpoint: Endpoint[Any], tenant: Tenant, body: bytes, parts: Mapping[str, bytes]
    ) -> tuple[Message, str]:
        """What a body asks for, and the address that is told of the end; "" is none.

        Args:
            endpoint: that is asked.
            tenant: who asks.
            body: JSON.
            parts: files that came with it, by name.

        Raises:
            Problem: with everything that is wrong.
        """
        try:
            asked = self._asked(body)
        except Exception as error:  # noqa: BLE001 - whatever bytes make a decoder raise
            raise self._problem(endpoint, body, error) from None
        if not can_hold_blobs(endpoint.reads):
            try:
                message = self._codec.decoder(endpoint.reads, "json")(asked.input)
            except Exception as error:  # noqa: BLE001
                raise self._problem(endpoint, body, error, "/input") from None
            return message, self._told(asked)
        data = validation.json(bytes(asked.input))
        given = {("part", name): Blob(content) for name, content in parts.items()}
        if urls := _urls(endpoint, data):
            # All else first: nothing is fetched for a body that is refused anyway.
            if faults := self._validation.faults(endpoint.name, validation.json(body)):
                raise invalid(faults)
            given |= await self._fetched(urls, data)
        try:
            message = msgspec.convert(
                data, endpoint.reads, dec_hook=self._hook(given), str_keys=True
            )
        except Exception as error:  # noqa: BLE001
            raise self._problem(endpoint, body, error, "/input") from None
        await self._check_paths(tenant, message, data)
        return message, self._told(asked)

    def _told(self, asked: Asked) -> str:
        if asked.webhook is None:
            return ""
        why: str | None = "this server tells no addresses"
        if self._webhooks:
            why = refusal(asked.webhook.url, private=self._private)
        if why is not None:
            raise invalid([Fault("/webhook/url", why)])
        return asked.webhook.url

    def _problem(
        self, endpoint: Endpoint[Any], body: bytes, error: Exception, where: str = ""
    ) -> Problem:
        return self._validation.problem(endpoint.name, validation.json(body), error, where)

    def _hook(self, given: Mapping[tuple[str, str], Blob]) -> Callable[[type, Any], Any]:
        def hook(kind: type, value: Any) -> Any:
            if kind is Blob and isinstance(value, dict) and len(value) == 1:
                ((how, name),) = value.items()
                if how in ("url", "part") and isinstance(name, str):
                    found = given.get((how, name))
                    if found is None:
                        raise ValueError(f"the body has no file {name!r}")
                    return found
            return self._codec.decode_custom(kind, value)

        return hook

    async def _fetched(self, wanted: Sequence[str], data: Any) -> dict[tuple[str, str], Blob]:
        """The files that are given by address.

        Raises:
            Problem: an address may not be fetched from, or does not give its file.
        """
        if self._fetch is None or len(wanted) > MOST_URLS:
            why = (
                "this server fetches from no address: send the file itself"
                if self._fetch is None
                else f"these are more than {MOST_URLS} addresses in one body"
            )
            raise invalid([Fault("/input" + _place(data, url), why) for url in wanted])
        turns, fetch = asyncio.Semaphore(_FETCHES), self._fetch

        async def one(url: str) -> bytes | Fault:
            async with turns:
                try:
                    return await fetch.get(url)
                except MqinferError as error:
                    return Fault("/input" + _place(data, url), str(error))

        found = await asyncio.gather(*map(one, wanted))
        if faults := [one for one in found if isinstance(one, Fault)]:
            raise invalid(faults)
        return {
            ("url", url): Blob(content)
            for url, content in zip(wanted, found, strict=True)
            if isinstance(content, bytes)
        }

    async def _check_paths(self, tenant: Tenant, message: Message, data: Any) -> None:
        """Refuse paths that are not the tenant's, or lead to nothing.

        Raises:
            Problem: so they do.
        """
        try:
            found, _ = blobs_in(message, message.__mqinfer__.wire)
        except Exception as error:  # noqa: BLE001 - of a value that cannot be encoded
            raise invalid([validation.of_decoder(error, "/input")]) from None
        paths = list(dict.fromkeys(blob.path for blob in found if blob.path is not None))
        if len(paths) > MOST_PATHS:
            raise invalid([Fault("/input", f"names more than {MOST_PATHS} files")])
        turns = asyncio.Semaphore(_LOOKS)

        async def why_not(path: str) -> str | None:
            if not path.startswith(tenant.prefix):
                return f"is no path of yours: yours begin with {tenant.prefix!r}"
            async with turns:
                there = await self._store.exists(path)
            return None if there else "nothing is stored under this path"

        reasons = await asyncio.gather(*map(why_not, paths))
        told = zip(paths, reasons, strict=True)
        if faults := [Fault("/input" + _place(data, path), why) for path, why in told if why]:
            raise invalid(faults)


def _urls(endpoint: Endpoint[Any], data: Any) -> list[str]:
    """The addresses that stand where the type has a blob."""
    found: dict[str, None] = {}
    for value in blob_values(inspect.type_info(endpoint.reads), data):
        if isinstance(value, dict) and set(value) == {"url"} and isinstance(value["url"], str):
            found[value["url"]] = None
    return list(found)


def _place(data: Any, text: str) -> str:
    """Where a text stands, as a pointer."""
    return next((pointer(steps) for steps in _places(data, text, ())), "")


def _places(data: Any, text: str, steps: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if data == text:
        yield steps
    elif isinstance(data, dict):
        for name, value in data.items():
            yield from _places(value, text, (*steps, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _places(value, text, (*steps, index))
