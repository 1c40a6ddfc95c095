"""A long file of irises: the 150 that scikit-learn has, again and again with noise; some are bad.

python -m examples.taskqueue.data --rows 100000 irises.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris

from examples.taskqueue.iris import SIDES, SPECIES

NOISE = 0.05  # centimetres, standard deviation
INVALID = 1000  # one row in so many has a text for a number
TOO_LONG = 2000  # and one in so many is longer than any iris


@dataclass(frozen=True)
class Written:
    """What a file holds.

    Attributes:
        rows: in it.
        invalid: numbers of the rows, from 1, that are no flowers.
        rejected: of those that the model is to refuse.
        species: of each row, as it was before the noise.
    """

    rows: int
    invalid: frozenset[int]
    rejected: frozenset[int]
    species: list[str]


def write(path: Path, rows: int, seed: int = 7) -> Written:
    """Write a file; the same for the same arguments."""
    known = load_iris()
    random = np.random.default_rng(seed)
    which = random.integers(0, len(known.data), rows)
    sides = (known.data[which] + random.normal(0, NOISE, (rows, len(SIDES)))).clip(0.1).round(2)
    invalid, rejected = set(), set()
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["custom_id", *SIDES])
        for number, values in enumerate(sides.tolist(), start=1):
            fields: list[object] = [f"flower-{number}", *values]
            if number % INVALID == 0:
                invalid.add(number)
                fields[-1] = "asdfg"
            elif number % TOO_LONG == TOO_LONG // 2 - 1:
                rejected.add(number)
                fields[1] = 12.5
            out.writerow(fields)
    species = [SPECIES[label] for label in known.target[which]]
    return Written(rows, frozenset(invalid), frozenset(rejected), species)


def main() -> int:
    """Write a file."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.taskqueue.data", description="Irises, as rows of a CSV."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    found = write(options.file, options.rows, options.seed)
    print(
        f"{options.file}: {found.rows:,} rows, {len(found.invalid)} with a text for a number, "
        f"{len(found.rejected)} longer than any iris"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
