"""Made-up reviews, a line of JSON each: python traffic.py COUNT SHARE_OF_CROSS_ONES."""

from __future__ import annotations

import json
import random
import sys
import uuid

from model import CROSS, PLEASED


def reviews(count: int, cross: float) -> list[dict[str, str]]:
    texts = {mood: text.split("/") for mood, text in (("pleased", PLEASED), ("cross", CROSS))}
    moods = ["cross" if random.random() < cross else "pleased" for _ in range(count)]
    return [{"id": uuid.uuid4().hex, "text": random.choice(texts[mood]).strip()} for mood in moods]


if __name__ == "__main__":
    for review in reviews(int(sys.argv[1]), float(sys.argv[2])):
        print(json.dumps(review))
