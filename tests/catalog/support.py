"""A `models.toml` of two small classes, packed for the Python of the tests: no environment."""

from __future__ import annotations

import sys
from pathlib import Path

from mqinfer.catalog.packing import Done, pack_all
from mqinfer.catalog.reading import read

CLASSES = '''
from mqinfer import Reject, Tensor

class TooLarge(Reject):
    pass

class Double:
    """Doubles a number.

    And says so.
    """

    inputs = {"x": Tensor("float32", (), ge=0, le=100, description="apples")}
    outputs = {"y": Tensor("float64", (2,)), "kind": Tensor("string", (), one_of=("even", "odd"))}

    def predict(self, x):
        if (x > 50).any():
            raise TooLarge(f"{x.max():g} apples")
        if (x == 13).any():
            raise ValueError("unlucky")
        if (x == 7).any():
            raise KeyError("a mistake")
        kind = ["even" if one % 2 == 0 else "odd" if one % 2 == 1 else "neither" for one in x]
        return {"y": [[2.0 * one] * 2 for one in x], "kind": kind}

class Join:
    both = {"n": Tensor("int8", (2, 1)), "by": Tensor("bytes", ())}
    inputs = {"words": Tensor("string", (-1,)), **both}
    outputs = {"text": Tensor("string", ()), **both}

    def predict(self, words, by, n):
        return {"text": ["-".join(one) for one in words], "n": n, "by": by}
'''

TOML = f"""
app = "numbers"

[models.double]
class = "classes:Double"
python = "{sys.executable}"
rejects = ["ValueError"]
attempts = 1
max_batch = 8

[models.join-words]
class = "classes:Join"
python = "{sys.executable}"
endpoint = "join"
deadline = "1m"
keep = 60
"""


def write(folder: Path, toml: str = TOML) -> Path:
    """Write the file and its classes."""
    (folder / "classes.py").write_text(CLASSES)
    path = folder / "models.toml"
    path.write_text(toml)
    return path


def packed(path: Path) -> list[Done]:
    """Pack what a file lists."""
    return pack_all(read(path))
