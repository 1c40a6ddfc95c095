"""Request: one request as a user of the library holds it: its id, status, answers and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from mqinfer.errors import (
    BlobError,
    ConfigurationError,
    RequestCanceled,
    RequestError,
    RequestExpired,
    RequestFailed,
    RequestInvalid,
    RequestPending,
    RequestRejected,
    Unavailable,
)

if TYPE_CHECKING:
    from mqinfer.codec import Codec
    from mqinfer.message import Message
    from mqinfer.requests.following import Followed
    from mqinfer.requests.requests import Requests
    from mqinfer.requests.state import Answer, Problem, State, Status

_ERRORS: Mapping[str, type[RequestFailed]] = {
    "rejected": RequestRejected,
    "invalid": RequestInvalid,
    "internal": RequestFailed,
}


A = TypeVar("A", bound="Message")


@dataclass(frozen=True, slots=True)
class RequestEvent(Generic[A]):
    """Something came of a request.

    Attributes:
        kind: "progress"; "answer", of which each comes once; or "end", which is the last.
        number: its place: `request.events(after=number)` goes on behind it.
        settled: of progress, how many messages of what came of the request so far are done.
        open: of progress, how many are not.
        answer: of an answer.
    """

    kind: Literal["progress", "answer", "end"]
    number: int
    settled: int = 0
    open: int = 0
    answer: A | None = None


class Request(Generic[A]):
    """A request; made by `client.request(...)` and `client.get_request(id)`.

        request = await client.request(Photo(...), wait=10)
        print(request.id, request.status, request.answers)

    Attributes:
        replayed: whether it was there before, under its key.
    """

    def __init__(self, requests: Requests, state: State, codec: Codec, *, replayed: bool = False):
        self.replayed = replayed
        self._requests = requests
        self._state = state
        self._codec = codec
        self._kept: tuple[Answer, ...] = ()
        self._trouble: Exception | None = None  # why the answers cannot be had
        self._answers: tuple[A, ...] | None = None

    # --- as it was when it was last looked at ---------------------------------------------------

    @property
    def id(self) -> str:
        """By which any process finds it."""
        return self._state.id

    @property
    def endpoint(self) -> str:
        """That was asked."""
        return self._state.endpoint

    @property
    def status(self) -> Status:
        """As it was when it was last waited for or looked at.

        "open", "succeeded", "partial" (something died, and there are answers), "failed",
        "canceled" or "expired".
        """
        return self._state.status

    @property
    def done(self) -> bool:
        """Whether it has ended, which does not change any more."""
        return not self._state.open

    @property
    def created(self) -> float:
        """When it was accepted, in seconds since the epoch."""
        return self._state.created

    @property
    def deadline(self) -> float:
        """When it ends, whatever came of it, in seconds since the epoch."""
        return self._state.deadline

    @property
    def expires(self) -> float:
        """When it is forgotten, in seconds since the epoch."""
        return self._state.expires

    @property
    def models(self) -> dict[str, str]:
        """`name -> version` of the models that answered."""
        from mqinfer.identity import parse_models

        return parse_models(self._state.models)

    @property
    def answers(self) -> tuple[A, ...]:
        """The answers, in the order of their causes; none while it is open.

        Raises:
            BlobError: they are in the blob store, and cannot be read.
            DecodeError: an answer is not what its type is now.
            RequestError: one is of a type that the endpoint does not answer with any more.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._answers is None:
            self._answers = tuple(map(self._decoded, self._kept))
        return self._answers

    @property
    def errors(self) -> tuple[RequestFailed, ...]:
        """One for each message that came of it and died, in that order."""
        return tuple(map(_error, self._state.errors))

    # --- asking ---------------------------------------------------------------------------------

    async def refresh(self) -> Request[A]:
        """Look at it again.

        Raises:
            RequestUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        return await self.wait(0)

    async def wait(self, seconds: float | None = None) -> Request[A]:
        """Wait for its end, or for so many seconds; itself.

        Raises:
            RequestUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        if self._state.open or self._trouble is not None:
            state = await self._requests.wait(self.id, seconds, tenant=self._state.tenant)
            await self._take(state)
        return self

    async def result(self, wait: float | None = None) -> tuple[A, ...]:
        """Its answers, in the order of their causes; where something died, see also `errors`.

        Args:
            wait: seconds to wait for its end; None waits until its deadline at most.

        Raises:
            RequestPending: it has not ended; it goes on.
            RequestRejected: a handler said that it can never be answered; the text is its.
            RequestInvalid: it is no message of its type.
            RequestFailed: it has no answer for other reasons; its `errors` say more.
            RequestCanceled: it was canceled.
            RequestExpired: its deadline came first.
            RequestUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        await self.wait(wait)
        if error := self._problem():
            raise error
        return self.answers

    async def progress(self) -> tuple[int, int]:
        """Of what came of it so far, how many messages are done, and how many are not.

        It says something while the request is open.

        Raises:
            Unavailable: NATS does not answer.
        """
        return await self._requests.progress(self._state)

    async def cancel(self) -> bool:
        """Cancel it; False if it had ended in another way before.

        Raises:
            RequestUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        await self._take(await self._requests.cancel(self.id, tenant=self._state.tenant))
        return self.status == "canceled"

    def __aiter__(self) -> AsyncGenerator[RequestEvent[A]]:
        """Its events from the beginning."""
        return self.events()

    async def events(self, *, after: int = 0) -> AsyncGenerator[RequestEvent[A]]:
        """What comes of it as it comes, to its end.

            async for event in request:
                print(event.kind, event.answer)

        Args:
            after: go on behind the event with this number.

        Raises:
            RequestUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        followed = self._requests.follow(self.id, after=after, tenant=self._state.tenant)
        async with aclosing(followed):
            async for one in followed:
                yield await self._event(one)

    async def facts(self) -> dict[str, Any]:
        """All that is known of it, of plain types.

        Raises:
            BlobError: its answers cannot be read.
            Unavailable: NATS does not answer.
        """
        from mqinfer.requests.listing import facts

        found = facts(self._state, await self._requests.answers(self._state))
        if not self.done:
            settled, left = await self.progress()
            found["progress"] = {"settled": settled, "open": left}
        return found

    # --- inside ---------------------------------------------------------------------------------

    async def _event(self, one: Followed) -> RequestEvent[A]:
        if one.state is not None:
            await self._take(one.state)
        answer = None if one.answer is None else self._decoded(one.answer)
        return RequestEvent(one.event, one.number, one.settled, one.open, answer)

    async def _take(self, state: State) -> None:
        """What is known of it now."""
        if not state.open:
            # What is kept elsewhere may be away; what the request is can be told all the same.
            self._trouble = self._answers = None
            try:
                self._kept = await self._requests.answers(state)
            except (BlobError, ConfigurationError, Unavailable) as error:
                self._trouble = error
        self._state = state

    def _decoded(self, answer: Answer) -> A:
        endpoint = self._requests.app.endpoints[self.endpoint]
        kinds = {kind.__mqinfer__.subject: kind for kind in endpoint.answers}
        kind = kinds.get(answer.type)
        if kind is None:
            raise RequestError(
                f"request {self.id}: it has an answer of type {answer.type!r}, which endpoint "
                f"{self.endpoint} does not answer with any more"
            )
        made: A = self._codec.decode(kind, answer.body.payload, answer.body.content_type)
        return made

    def _problem(self) -> RequestError | None:
        """What `result` raises."""
        status = self.status
        if status == "open":
            return RequestPending(f"request {self.id} has not ended yet; it goes on")
        if status == "canceled":
            return RequestCanceled(f"request {self.id} was canceled")
        if status == "expired":
            return RequestExpired(f"request {self.id}: its deadline came before its end")
        errors = self.errors
        if status != "failed":
            return None
        if len({type(one) for one in errors}) == 1:
            return type(errors[0])(str(errors[0]), errors=errors, letter=errors[0].letter)
        return RequestFailed("; ".join(dict.fromkeys(map(str, errors))), errors=errors)

    def __repr__(self) -> str:
        return f"Request({self.id!r}, {self.status})"


def _error(problem: Problem) -> RequestFailed:
    return _ERRORS[problem.kind](problem.reason, letter=problem.letter)


async def of(
    requests: Requests, state: State, codec: Codec, *, replayed: bool = False
) -> Request[Any]:
    """A request as a user holds it, with its answers if it has ended.

    Args:
        requests: of the app.
        state: of the request.
        codec: of the answers.
        replayed: whether it was there before.
    """
    made: Request[Any] = Request(requests, state, codec, replayed=replayed)
    await made._take(state)
    return made
