"""How unusual is a flower? An older model, which stays with the libraries that it was made with.

It knows nothing of mqinfer but `Tensor`: that a flower cannot be judged it says by a ValueError, as
its author always did, and `models.toml` has that reach whoever asked. One mistake is left in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest

from mqinfer import Tensor

SIDES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
# By whole centimetres of its petal. Its author never saw one of eight, so that it breaks there.
SIZES = {
    0: "tiny",
    1: "small",
    2: "small",
    3: "medium",
    4: "medium",
    5: "large",
    6: "large",
    7: "huge",
}


class Oddity:
    """Says how unusual a flower is among the irises that are known."""

    inputs = {side: Tensor("float32", (), ge=0.1, le=30, description="cm") for side in SIDES}
    outputs = {
        "odd": Tensor("bool", ()),
        "score": Tensor("float32", (), description="the less, the odder"),
        "size": Tensor("string", (), one_of=("tiny", "small", "medium", "large", "huge")),
        "libraries": Tensor("string", (), description="that it was answered with"),
    }

    def load(self, _folder: Path) -> None:
        self.model = IsolationForest(n_estimators=50, random_state=0).fit(load_iris().data)
        self.libraries = f"scikit-learn {sklearn.__version__}, numpy {np.__version__}"

    def predict(
        self, sepal_length: Any, sepal_width: Any, petal_length: Any, petal_width: Any
    ) -> dict[str, Any]:
        swapped = petal_length > sepal_length
        if swapped.any():
            length = petal_length[swapped][0]
            raise ValueError(
                f"a petal of {length:.1f} cm, longer than the sepal: were they swapped?"
            )
        sides = np.column_stack([sepal_length, sepal_width, petal_length, petal_width])
        scores = self.model.decision_function(sides)
        return {
            "odd": scores < 0,
            "score": scores,
            "size": [SIZES[int(length)] for length in petal_length],
            "libraries": [self.libraries] * len(sides),
        }
