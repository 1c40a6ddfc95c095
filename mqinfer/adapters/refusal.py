"""Refusal: models that calls, each one item for one answer, cannot work with, and what to do."""

from __future__ import annotations


def refusal(model: str, *, decoupled: bool, sequence: bool) -> str | None:
    """Why a model cannot be called; None if it can.

    Args:
        model: its name.
        decoupled: whether it sends any number of answers to a request.
        sequence: whether it keeps a state between requests.
    """
    if decoupled:
        return (
            f"model {model} is decoupled: it streams any number of answers to a request, and a "
            "call takes one. Serve it without `model_transaction_policy { decoupled: true }`, "
            "with the answers gathered into one output of variable size, or ask it with a client "
            "of your own"
        )
    if sequence:
        return (
            f"model {model} is a sequence model (`sequence_batching`): it keeps a state between "
            "the requests of one sequence, and calls are independent of each other. Serve it with "
            "the state, or the whole sequence, as inputs, or ask it with a client of your own"
        )
    return None
