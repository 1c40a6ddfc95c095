"""Refusal: models that independent calls cannot work with, and what to do."""

from __future__ import annotations


def refusal(model: str, *, sequence: bool) -> str | None:
    """Why a model cannot be called; None if it can.

    Args:
        model: its name.
        sequence: whether it keeps a state between requests.
    """
    if sequence:
        return (
            f"model {model} is a sequence model (`sequence_batching`): it keeps a state between "
            "the requests of one sequence, and calls are independent of each other. Serve it with "
            "the state, or the whole sequence, as inputs, or ask it with a client of your own"
        )
    return None
