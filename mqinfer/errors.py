"""Every error mqinfer raises, in one tree; each text says what happened and what to do.

Three families matter to the engine:

* `Retry`, `Snooze` and `Reject` are *outcomes*: a handler raises them to say what becomes of its
  message.
* `Unavailable` is an *outage* of a server: the work waits, no attempt is spent.
* everything else that a handler raises is a *failure*: retried with backoff, then dead-lettered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class MqinferError(Exception):
    """Base of everything raised by mqinfer on purpose."""


# --- wiring and configuration: exit code 2 -------------------------------------------------------


class ConfigurationError(MqinferError):
    """A setting, a declaration or a command line that cannot work as written."""


class WiringError(ConfigurationError):
    """A stage, message, model or table of an `App` is declared in a way that cannot work."""


class ConflictError(ConfigurationError):
    """A stream, consumer or table exists with a setting that differs and cannot be changed."""


# --- outcomes a handler may choose ---------------------------------------------------------------


class Retry(MqinferError):
    """Something went wrong that may go well later: handle this message again.

    It spends an attempt, unless `after` says when: then the other side has said "not now" (429,
    `Retry-After`) rather than failed, and it is a `Snooze`.

    Args:
        after: time to wait, seconds or such as "5m"; None takes the stage's own backoff.
        reason: what the logs and, after the last attempt, the dead letter say.
    """

    def __init__(
        self, reason: str = "the handler asked for a retry", *, after: float | str | None = None
    ):
        super().__init__(reason)
        self.after = after


class Snooze(MqinferError):
    """Not yet: handle this message again later. Nothing went wrong, and no attempt is spent.

    A message that is snoozed for longer than its stage's `snooze_for` is dead-lettered.

    Args:
        after: time to wait, seconds or such as "5m".
        reason: what the logs say.
    """

    def __init__(self, reason: str = "not yet", *, after: float | str):
        super().__init__(reason)
        self.after = after


class Reject(MqinferError):
    """This message can never be answered: dead-letter it now, without further attempts."""


class DecodeError(Reject):
    """The bytes of a message do not make the type its stage reads."""


class BadImage(Reject):
    """Bytes that should be a picture cannot be one (empty, truncated, too large, unknown)."""


class BadTensor(Reject):
    """An array does not fit the model's input: wrong name, dtype or shape."""


# --- failures ------------------------------------------------------------------------------------


class HandlerTimeout(MqinferError):
    """A handler ran longer than its stage's `timeout`."""


class HandlerHangs(MqinferError):
    """A worker stopped, and a handler of it did not end, whatever cancelled it.

    What it had is given to others. Its task runs on, and ends with the process.
    """


class SnoozedTooLong(MqinferError):
    """A message asked for more time again and again, for longer than its stage's `snooze_for`."""


class EncodeError(MqinferError):
    """A message has a value that is not what its type says, or that its wire format cannot carry.

    Of an output of a handler, it is a failure of the stage that wrote it.
    """


class StateError(MqinferError):
    """The state of a key cannot be read, or cannot be written; it stays as it is."""


class StateTooLarge(StateError, Reject):
    """A state exceeds the server's limit."""


class WorkerKilled(MqinferError):
    """The worker died each time while it handled this message."""


class BlobError(MqinferError):
    """A blob cannot be read or written."""


class BlobNotFound(BlobError):
    """Nothing is stored under a blob's path."""


class BlobTooLarge(BlobError, Reject):
    """A blob is larger than its reader allows; reading it again would not change that."""


class BlobPathError(BlobError, Reject):
    """A blob path is absolute, empty or leaves the root of its store."""


class ModelError(MqinferError):
    """The inference server answered a model call with an error about this item."""


class ModelRejected(ModelError, Reject):
    """The model itself said of this item that it can never be answered; the text is the model's."""


class ModelTimeout(MqinferError):
    """A model call outside of a handler was not answered within the `timeout` of its handle."""


class PublishError(MqinferError):
    """The stream refused a message for good; the client stays usable."""


class PayloadTooLarge(PublishError, Reject):
    """Payload plus headers exceed the server's limit."""


class PublishTimeout(PublishError):
    """No acknowledgement came in time; publishing again under the same id is safe."""


class RequestError(MqinferError):
    """Base of what is told of a request."""


class RequestUnknown(RequestError):
    """There is no request of this id: there never was, or its answer was kept long enough."""


class RequestConflict(RequestError):
    """A key that was used before asks for something else now."""


class RequestPending(RequestError, TimeoutError):
    """The request has not ended in the time that was given; it goes on."""


class RequestFailed(RequestError):
    """The request has no answer, since what came of it could not be handled.

    Attributes:
        errors: one for each message that came of it and died; none in the errors of such a one.
        letter: the id of the dead letter, where it is about one of mqinfer's own making.
    """

    def __init__(self, text: str, *, errors: Sequence[RequestFailed] = (), letter: str = ""):
        super().__init__(text)
        self.errors = tuple(errors)
        self.letter = letter


class RequestRejected(RequestFailed):
    """A handler said that it can never be answered (`Reject`); the text is the handler's."""


class RequestInvalid(RequestFailed):
    """What was asked is no message of its type."""


class RequestCanceled(RequestError):
    """The request was canceled."""


class RequestExpired(RequestError):
    """The deadline of the request came before its end."""


class JobUnknown(RequestError):
    """There is no job of this id: there never was, or its end was kept long enough."""


class SearchError(MqinferError, ValueError):
    """What is searched for, or by, cannot be: the text says what is wrong with it."""


class PermissionDenied(MqinferError):
    """The server denies this subject or table to these credentials."""


class TableError(MqinferError):
    """ClickHouse refused a statement."""


class BadRows(TableError):
    """ClickHouse refused a batch because of the data in it.

    Attributes:
        row: which one, from 0, where the server says so of a block that was sent whole.
        column: whose values cannot be converted, where the server says so.
    """

    def __init__(self, text: str, *, row: int | None = None, column: str | None = None):
        super().__init__(text)
        self.row = row
        self.column = column


# --- outages: wait, do not fail ------------------------------------------------------------------


class Unavailable(MqinferError):
    """A server does not answer now; the same request may succeed later."""


class StateChanged(Unavailable):
    """The state of a key is not what its message was handled with: it is handled again."""


class ConnectionClosed(Unavailable):
    """The server closed the connection for good: only a new one may answer."""


class ModelUnavailable(Unavailable):
    """A model is not loaded, or its server does not answer."""


class NotConnected(MqinferError):
    """A model or blob was used outside a worker and outside `async with mqinfer.connect(app)`."""
