"""Refused: an answer that is no result, with gRPC's code and the words that Triton has for it."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]


class Refused(Exception):
    """A call cannot be answered.

    Attributes:
        code: gRPC's status.
        text: what Triton says then.
        by_model: whether the model itself said so.
    """

    def __init__(self, code: grpc.StatusCode, text: str, *, by_model: bool = False):
        super().__init__(text)
        self.code = code
        self.text = text
        self.by_model = by_model


def invalid(text: str) -> Refused:
    """What was asked makes no sense."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> Refused:
    """There is no such thing."""
    return Refused(grpc.StatusCode.NOT_FOUND, text)


def unavailable(text: str) -> Refused:
    """Not now."""
    return Refused(grpc.StatusCode.UNAVAILABLE, text)


def internal(text: str, *, by_model: bool = False) -> Refused:
    """It went wrong here."""
    return Refused(grpc.StatusCode.INTERNAL, text, by_model=by_model)


def unimplemented(text: str) -> Refused:
    """Not by this server."""
    return Refused(grpc.StatusCode.UNIMPLEMENTED, text)
