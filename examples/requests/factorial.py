"""The factorial of a large number, as a program: `python factorial.py 150000` prints it as JSON.

It takes seconds, and holds the interpreter's lock for most of them: so it has a process of its own.
It ends when what it reads ends, and so with whoever started it, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from decimal import Decimal
from typing import Any

SHOWN = 12
"""Digits that are shown at each end."""


def factorial(n: int) -> Decimal:
    """The factorial of n, exactly; multiplied up one by one, as the study did it."""
    product = 1
    for factor in range(2, n + 1):
        product *= factor
    return Decimal(product)  # whose digits take no time; those of an int take the square of them


def told(n: int) -> dict[str, Any]:
    """What is told of the factorial of n: it would fill a book."""
    began = time.perf_counter()
    digits = str(factorial(n))
    rest = digits.rstrip("0")
    return {
        "n": n,
        "digits": len(digits),
        "first": digits[:SHOWN],
        "last": rest[-SHOWN:],
        "zeros": len(digits) - len(rest),
        "seconds": round(time.perf_counter() - began, 3),
    }


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(json.dumps(told(int(sys.argv[1]))), flush=True)
    os._exit(0)  # the thread still reads: no orderly end waits for it
