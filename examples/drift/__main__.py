"""A good day becomes the reference; on the next one there is twice as much rust."""

import random

from mqinfer.monitor.accuracy import estimated
from mqinfer.monitor.advice import Facts, retrain
from mqinfer.monitor.detector import Budget, Detector, backtest, watch
from mqinfer.monitor.reference import reference_of
from mqinfer.monitor.verdict import verdict

chance = random.Random(1)


def hours(first: int, last: int, rust: float) -> list[tuple[int, dict[str, int]]]:
    """Counts of labels in steps of 10 seconds, three rows in each."""
    found = [(step, sum(chance.random() < rust for _ in range(3))) for step in range(first, last)]
    return [(step, {"rust": count, "healthy": 3 - count}) for step, count in found]


good, now = hours(0, 24 * 360, rust=0.1), hours(24 * 360, 26 * 360, rust=0.2)
reference, budget = reference_of(good), Budget(chance=0.05, days=30).threshold()
print("alarms on its own day:", len(backtest(good, budget) or ()))
alarms = watch(Detector.of(reference), [(at, reference.folded(n)) for at, n in now], budget)
print("the first one after the change:", 3 * (alarms[0].step - now[0][0] + 1), "rows")
totals = {key: sum(counts[key] for _, counts in now) for key in ("rust", "healthy")}
print(verdict(totals, reference, alarm=True))
sure = estimated({"0.95": 1500, "0.55": 660}, {"0.95": (300, 291), "0.55": (100, 57)})
print("retrain?", retrain(Facts(True, [sure] if sure else [], target=0.9, worst=["rust"])))
