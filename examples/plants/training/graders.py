"""Train the five graders and export them.

    python -m examples.plants.training.data                    once
    python -m examples.plants.training.graders                 all five
    python -m examples.plants.training.graders --small rust    version 1 of grade_rust

All five are trained at once: one trunk, five heads. Each exported model holds a copy of the trunk
and its own head. What comes out is version 1 of each, but version 2 of `grade_rust`, whose version
1 is a small network trained briefly on a part of the data: the pair that replays compare.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nn_f
from torch import Tensor

from examples.plants.lesions import DISEASES
from examples.plants.training.data import CACHE, load
from examples.plants.training.export import REPOSITORY, export
from examples.plants.training.nets import Grader, GraderServed

SECOND = "rust"
"""The disease whose grader has a second version."""
SMALL_CROPS = 8000
"""Crops that its first version is trained on."""


def batch(crops: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Vary crops and their maps: mirrored, turned, other light, other colours."""
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    y = torch.from_numpy(maps).float() / 255
    turns = int(rng.integers(4))
    x, y = torch.rot90(x, turns, (2, 3)), torch.rot90(y, turns, (2, 3))
    if rng.random() < 0.5:
        x, y = x.flip(3), y.flip(3)
    gain = torch.from_numpy(rng.uniform(0.93, 1.07, (len(x), 3, 1, 1))).float()
    light = torch.from_numpy(rng.uniform(0.82, 1.18, (len(x), 1, 1, 1))).float()
    return (x * gain * light).clamp(0, 255), y


def main() -> None:
    """Train for a number of steps."""
    parser = argparse.ArgumentParser(description="Train the graders.")
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--small", choices=[SECOND], help="train its small version 1")
    parser.add_argument("--width", type=int)
    parser.add_argument("--steps", type=int, help="by default 2000, or 1000 of the small one")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, default=REPOSITORY)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    small = options.small is not None
    known = [DISEASES.index(options.small)] if small else list(range(len(DISEASES)))
    width = options.width or (16 if small else 32)
    steps = options.steps or (1000 if small else 2000)
    weights = CACHE / (f"grade_{options.small}-small.pt" if small else "graders.pt")
    data = load(options.data)
    usable = SMALL_CROPS if small else len(data["grades"])
    grades = torch.from_numpy(data["grades"][:usable, known])
    layers = [0] + [1 + index for index in known]
    net = Grader(len(known), width).to(memory_format=torch.channels_last)
    if options.start_from:
        net.load_state_dict(torch.load(options.start_from))
    tuner = torch.optim.AdamW(net.parameters(), options.rate, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        tuner, options.rate, total_steps=steps, pct_start=0.15
    )
    began, mean, exact = time.monotonic(), 0.0, np.zeros(len(known))
    for step in range(steps):
        chosen = np.sort(rng.choice(len(grades), options.batch, replace=False))
        x, y = batch(data["crops"][chosen], data["maps"][chosen][:, layers], rng)
        logits, maps = net(x.contiguous(memory_format=torch.channels_last))
        seen = nn_f.binary_cross_entropy_with_logits(maps, y, reduction="none").mean((0, 2, 3))
        wanted = grades[chosen]
        judged = nn_f.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        value = 10 * seen.mean() + judged
        tuner.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        tuner.step()
        plan.step()
        share = (logits.argmax(-1) == wanted).float().mean(0).numpy()
        keep = 0.0 if step == 0 else 0.98
        mean = keep * mean + (1 - keep) * float(value.detach())
        exact = keep * exact + (1 - keep) * share
        if step % 50 == 49:
            right = " ".join(f"{part:.3f}" for part in exact)
            passed = time.monotonic() - began
            print(f"step {step + 1} loss {mean:.3f} exact {right} {passed:.0f} s", flush=True)
        if step % 400 == 399 or step + 1 == steps:
            torch.save(net.state_dict(), weights)
            _export(net, width, known, options.out, small)


def _export(net: Grader, width: int, known: list[int], out: Path, small: bool) -> None:
    whole = Grader(len(known), width)
    whole.load_state_dict(net.state_dict())
    for place, index in enumerate(known):
        version = "2" if DISEASES[index] == SECOND and not small else "1"
        path = out / f"grade_{DISEASES[index]}" / version / "model.onnx"
        export(GraderServed(whole.only(place)), (96, 96, 3), ["probabilities"], path)


if __name__ == "__main__":
    main()
