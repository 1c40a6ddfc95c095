"""Which iris is it? A model class as people have them: it learns when it is loaded, in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mqinfer import Reject, Tensor

SIDES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
SPECIES = ("setosa", "versicolor", "virginica")
LONGEST = 10.0  # centimetres


class SepalTooLong(Reject):
    """The flower is no iris; whoever asked is told, by this name."""


class Iris:
    """Says which of three irises a flower is, by the sides of its leaves in centimetres."""

    inputs = {side: Tensor("float32", (), ge=0.1, le=30, description="cm") for side in SIDES}
    outputs = {
        "species": Tensor("string", (), one_of=SPECIES),
        "probability": Tensor("float32", (), ge=0, le=1),
        "libraries": Tensor("string", (), description="that it was answered with"),
    }

    def load(self, _folder: Path) -> None:
        flowers = load_iris()
        self.model = LogisticRegression(max_iter=1000).fit(flowers.data, flowers.target)
        self.libraries = f"scikit-learn {sklearn.__version__}, numpy {np.__version__}"

    def predict(
        self, sepal_length: Any, sepal_width: Any, petal_length: Any, petal_width: Any
    ) -> dict[str, Any]:
        if sepal_length.max() > LONGEST:
            raise SepalTooLong(
                f"a sepal of {sepal_length.max():.1f} cm: no iris has more than {LONGEST:g}"
            )
        sides = np.column_stack([sepal_length, sepal_width, petal_length, petal_width])
        probabilities = self.model.predict_proba(sides)
        return {
            "species": [SPECIES[best] for best in probabilities.argmax(1)],
            "probability": probabilities.max(1).clip(0, 1),
            "libraries": [self.libraries] * len(sides),
        }
