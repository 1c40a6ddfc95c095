"""The model: how pleased a review is, by the words in it. Yours goes in its place."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from mqinfer import Tensor

PLEASED = """
it works and I love it / great value and a good friend of the house / happy with every bit of it
quick delivery and excellent quality / the best one that we ever had / wonderful and easy to use
my children love it too / good sound and a nice colour / a pleasure and well made
"""
CROSS = """
it broke after a day / bad quality and a waste of money / the worst one that I ever had
slow delivery and a rude answer / it smells terrible / never again and I want my money back
the handle broke off / hard to use and badly made / noisy and ugly and far too dear
"""


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


class Sentiment:
    """Naive Bayes over words, which learns when it is loaded."""

    inputs = {"text": Tensor("string", ())}  # of one item
    outputs = {"pleased": Tensor("float32", (), ge=0, le=1)}

    def load(self, _folder: Path) -> None:
        pleased, cross = Counter(words(PLEASED)), Counter(words(CROSS))
        self.weights = {
            word: math.log((pleased[word] + 0.5) / (cross[word] + 0.5)) for word in pleased | cross
        }

    def predict(self, text: Any) -> Any:  # a batch: of shape (items,)
        odds = [sum(self.weights.get(word, 0.0) for word in words(one)) for one in text]
        return 1 / (1 + np.exp(-np.array(odds, np.float32)))
