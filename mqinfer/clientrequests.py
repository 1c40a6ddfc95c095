"""The requests of a client: it asks, and is told what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mqinfer import wiring
from mqinfer.codec import CONTENT_TYPES
from mqinfer.endpoint import Endpoint
from mqinfer.errors import ConfigurationError
from mqinfer.identity import TRACE
from mqinfer.requests import request
from mqinfer.requests.requests import unknown

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.message import Message, Wire
    from mqinfer.requests.request import Request
    from mqinfer.requests.requests import Requests
    from mqinfer.worker.services import Services

A = TypeVar("A", bound="Message")


class ClientRequests:
    """The part of `Client` that asks."""

    app: App
    _services: Services
    _codec: Codec
    _requests: Requests | None = None

    def _subject(self, message: Message) -> str:
        raise NotImplementedError

    async def _encoded(self, message: Message) -> tuple[bytes, Wire]:
        raise NotImplementedError

    @overload
    async def request(
        self,
        message: Message,
        *,
        endpoint: Endpoint[A],
        wait: float = 0.0,
        key: str | None = None,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Request[A]: ...

    @overload
    async def request(
        self,
        message: Message,
        *,
        endpoint: str | None = None,
        wait: float = 0.0,
        key: str | None = None,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Request[Any]: ...

    async def request(
        self,
        message: Message,
        *,
        endpoint: Endpoint[Any] | str | None = None,
        wait: float = 0.0,
        key: str | None = None,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Request[Any]:
        """Ask, and have a `Request` once it is accepted: from then on nothing can lose it.

            request = await client.request(Photo(...), wait=10)
            grades = await request.result()

        Args:
            message: of the type that the endpoint reads.
            endpoint: what `app.endpoint` gave (then type checkers know what its answers are), or
                its name; None is the only one that reads this type.
            wait: seconds to wait for its end.
            key: what is asked again under the same key (after an error of the connection, say) is
                the same request, for as long as it is kept. None is a new one.
            tenant: on whose behalf; a request is found under the same only.
            headers: of the message, such as `traceparent`; without that it is of the trace that
                goes on here, if the process traces.

        Raises:
            ConfigurationError: there is no such endpoint, or several.
            EncodeError: a value in the message is not what its type says; nothing was sent.
            BlobError: a blob in it cannot be stored.
            PayloadTooLarge: it exceeds the server's limit; nothing was accepted.
            RequestConflict: the key was used for something else.
            Unavailable: NATS does not answer; ask again under the same key.
        """
        declared = self._asked(message, endpoint)
        requests = await self.requests()
        payload, wire = await self._encoded(message)
        accepted = await requests.accept(
            declared.name,
            self._subject(message),
            payload,
            CONTENT_TYPES[wire],
            key=key,
            tenant=tenant,
            headers=self._traced(headers),
            wait=wait,
        )
        return await request.of(requests, accepted.state, self._codec, replayed=accepted.replayed)

    async def get_request(self, id: str, *, tenant: str = "") -> Request[Any]:  # noqa: A002
        """A request by its id, from whatever process it was made.

        Raises:
            RequestUnknown: there is none: it is forgotten, or there never was one.
            Unavailable: NATS does not answer.
        """
        requests = await self.requests()
        state = await requests.find(id, tenant=tenant)
        if state is None:
            raise unknown(id)
        return await request.of(requests, state, self._codec)

    async def requests(self) -> Requests:
        """The requests of the app, for who handles payloads rather than messages.

        Raises:
            ConfigurationError: the app has no endpoint.
            Unavailable: NATS does not answer.
        """
        if self._requests is None:
            services = self._services
            if not self.app.endpoints or services.core is None or services.streams is None:
                raise ConfigurationError(
                    f"app {self.app.name} has no endpoint: declare one with app.endpoint(...)"
                )
            requests = wiring.requests(self.app, services)
            await requests.ensure()
            self._requests = requests
        return self._requests

    def _traced(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Headers of a message, which is of the trace that goes on, unless they name another."""
        tracing = self._services.tracing
        if tracing is None or (span := tracing.current()) is None or TRACE in (headers or {}):
            return headers
        return {**(headers or {}), **span.headers}

    def _asked(self, message: Message, given: Endpoint[Any] | str | None) -> Endpoint[Any]:
        endpoints = self.app.endpoints
        name = given.name if isinstance(given, Endpoint) else given
        kind = type(message)
        if name is not None:
            found = [endpoints[name]] if name in endpoints else []
        else:
            found = [one for one in endpoints.values() if one.reads is kind]
        if len(found) == 1 and found[0].reads is kind:
            return found[0]
        told = ", ".join(f"{one.name} ({one.reads.__name__})" for one in endpoints.values())
        which = "not one endpoint" if name is None else f"no endpoint {name!r}"
        raise ConfigurationError(
            f"app {self.app.name} has {which} that reads {kind.__name__}; it has {told or 'none'}: "
            "name it with endpoint="
        )
