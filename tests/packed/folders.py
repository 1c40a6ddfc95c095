"""Models as people have them, for the tests: classes, and folders as MLflow writes them."""

from __future__ import annotations

import json
from pathlib import Path

DOUBLE = """
from mqinfer import Tensor

class Double:
    inputs = {"x": Tensor("float32", (2,))}
    outputs = {"y": Tensor("float32", (2,)), "name": Tensor("string", ())}
    by = 2.0

    def load(self, folder):
        if (folder / "by.txt").exists():
            self.by = float((folder / "by.txt").read_text())

    def predict(self, x):
        return {"y": x * self.by, "name": ["double"] * len(x)}
"""

IRIS = '''
import numpy
import sklearn
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from mqinfer import Reject, Tensor

class Iris:
    """The same flowers learned with whatever scikit-learn there is."""

    inputs = {"x": Tensor("float32", (4,))}
    outputs = {
        "label": Tensor("int64", ()),
        "scores": Tensor("float32", (3,)),
        "by": Tensor("string", ()),
    }

    def load(self, folder):
        self.model = GaussianNB().fit(*load_iris(return_X_y=True))

    def predict(self, x):
        if (x < 0).any():
            raise ValueError("no flower is smaller than nothing")
        if (x > 99).any():
            raise Reject("socket closed: no flower is so large")
        scores = self.model.predict_proba(x)
        by = f"{sklearn.__version__} {numpy.__version__}"
        return {"label": scores.argmax(1), "scores": scores, "by": [by] * len(x)}
'''

_ML = """artifact_path: model
flavors:
  python_function:
    loader_module: seven
    data: weights.json
    code: code
    env:
      virtualenv: python_env.yaml
    python_version: 3.11.7
signature:
  inputs: '{inputs}'
  outputs: '{outputs}'
  params: null
"""
_SEVEN = """
import json

class Model:
    def __init__(self, by):
        self.by = by

    def predict(self, model_input, params=None):
        return model_input * self.by

def _load_pyfunc(path):
    with open(path) as file:
        return Model(json.load(file))
"""


def save_mlflow(folder: Path, *, columns: bool) -> None:
    """A folder in MLflow's layout, with a loader of its own.

    Args:
        folder: to write.
        columns: whether its signature is one of columns, rather than of tensors.
    """
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "seven.py").write_text(_SEVEN)
    (folder / "weights.json").write_text("7")
    (folder / "requirements.txt").write_text("cloudpickle==3.0.0\npandas\n")
    if columns:
        inputs = [{"type": "double", "name": "acid"}, {"type": "string", "name": "color"}]
        outputs = json.dumps([{"type": "long"}])
    else:
        (folder / "requirements.txt").unlink()
        spec = {"dtype": "float32", "shape": [-1, 2]}
        inputs = [{"type": "tensor", "tensor-spec": spec}]  # type: ignore[dict-item]
        outputs = json.dumps(inputs)
    text = _ML.format(inputs=json.dumps(inputs), outputs=outputs)
    (folder / "MLmodel").write_text(text)
