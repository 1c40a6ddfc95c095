"""Train `leaf_detector` and export it.

python -m examples.plants.training.data       once
python -m examples.plants.training.detector
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.plants.training.data import CACHE, load
from examples.plants.training.export import REPOSITORY, export
from examples.plants.training.nets import STRIDE, UNIT, Detector, DetectorServed

ROWS, COLUMNS = 60, 80


def targets(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn boxes [n, 20, 4] into a map of centres, sides per cell and which cells have sides."""
    x = (torch.arange(COLUMNS) * STRIDE + STRIDE / 2).view(1, 1, 1, COLUMNS)
    y = (torch.arange(ROWS) * STRIDE + STRIDE / 2).view(1, 1, ROWS, 1)
    x0, y0, x1, y1 = (boxes[..., i, None, None] for i in range(4))
    real = (x1 > x0).float()
    # The cell whose centre is nearest to the box's is the peak, exactly 1.
    cx = ((x0 + x1) / 2 / STRIDE).floor() * STRIDE + STRIDE / 2
    cy = ((y0 + y1) / 2 / STRIDE).floor() * STRIDE + STRIDE / 2
    sx, sy = (x1 - x0).clamp(min=24) * 0.12, (y1 - y0).clamp(min=24) * 0.12
    off = ((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2
    bell = torch.exp(-off / 2) * real
    heat, owner = bell.max(1)
    each = [(x - x0), (y - y0), (x1 - x), (y1 - y)]
    each = [side.expand_as(bell) / UNIT for side in each]
    at = owner.unsqueeze(1)
    sides = torch.cat([side.gather(1, at) for side in each], 1)
    weight = (heat > 0.5).float() * heat * (sides.amin(1) > 0).float()
    return heat, sides, weight


def loss(logits: Tensor, sides: Tensor, wanted: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Penalty-reduced focal loss on the centres, generalised IoU loss on the boxes."""
    heat, wanted_sides, weight = wanted
    logits = logits[:, 0]
    probability = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
    peak = heat > 0.999
    hit = -torch.log(probability) * (1 - probability) ** 2 * peak
    miss = -torch.log(1 - probability) * probability**2 * (1 - heat) ** 4 * ~peak
    centres = (hit.sum() + miss.sum()) / peak.sum().clamp(min=1)
    low, high = torch.minimum(sides, wanted_sides), torch.maximum(sides, wanted_sides)
    shared = (low[:, 0] + low[:, 2]) * (low[:, 1] + low[:, 3])
    hull = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
    area = (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
    wanted_area = (wanted_sides[:, 0] + wanted_sides[:, 2]) * (
        wanted_sides[:, 1] + wanted_sides[:, 3]
    )
    union = area + wanted_area - shared
    giou = shared / (union + 1e-6) - (hull - union) / (hull + 1e-6)
    boxes = ((1 - giou) * weight).sum() / weight.sum().clamp(min=1)
    return centres + 2 * boxes


def batch(photos: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Vary photographs and their boxes: mirrored, other light, other colours."""
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    b = torch.from_numpy(boxes.copy())
    real = (b[..., 2:3] > b[..., 0:1]).float()
    if rng.random() < 0.5:
        x = x.flip(3)
        b = torch.stack([640 - b[..., 2], b[..., 1], 640 - b[..., 0], b[..., 3]], -1) * real
    if rng.random() < 0.5:
        x = x.flip(2)
        b = torch.stack([b[..., 0], 480 - b[..., 3], b[..., 2], 480 - b[..., 1]], -1) * real
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(x), 3, 1, 1))).float()
    light = torch.from_numpy(rng.uniform(0.65, 1.3, (len(x), 1, 1, 1))).float()
    return (x * gain * light).clamp(0, 255), b


def main() -> None:
    """Train for a number of rounds, or as many as fit in the time."""
    parser = argparse.ArgumentParser(description="Train leaf_detector.")
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--weights", type=Path, default=CACHE / "leaf_detector.pt")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "leaf_detector/1/model.onnx")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    data = load(options.data)
    net = Detector().to(memory_format=torch.channels_last)
    if options.start_from:
        net.load_state_dict(torch.load(options.start_from))
    tuner = torch.optim.AdamW(net.parameters(), options.rate, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        tuner, options.rate, total_steps=options.steps, pct_start=0.15
    )
    began, mean = time.monotonic(), 0.0
    for step in range(options.steps):
        chosen = np.sort(rng.choice(len(data["photos"]), options.batch, replace=False))
        x, boxes = batch(data["photos"][chosen], data["boxes"][chosen], rng)
        value = loss(*net(x.contiguous(memory_format=torch.channels_last)), targets(boxes))
        tuner.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        if torch.isfinite(norm):
            tuner.step()
        plan.step()
        mean = float(value.detach()) if step == 0 else 0.97 * mean + 0.03 * float(value.detach())
        if step % 50 == 49:
            print(f"step {step + 1} loss {mean:.3f} {time.monotonic() - began:.0f} s", flush=True)
        if step % 400 == 399 or step + 1 == options.steps:
            torch.save(net.state_dict(), options.weights)
            served = Detector()
            served.load_state_dict(net.state_dict())
            export(DetectorServed(served), (480, 640, 3), ["boxes", "scores"], options.out)


if __name__ == "__main__":
    main()
