"""The networks. Everything between the uint8 picture and the answer is inside the graph."""

from __future__ import annotations

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn

STRIDE = 8
"""Photograph pixels per cell of the detector's map."""
UNIT = 32.0
"""Photograph pixels per unit of the detector's box regression."""
FOUND = 32
"""Boxes the detector answers with, leaves or not."""


class Conv(nn.Sequential):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Detector(nn.Module):
    """CenterNet-like: a map of leaf centres, and the four sides of a box at each cell.

    Takes [n, 3, 240, 320] RGB in 0..255 (a photograph at half its size), gives logits
    [n, 1, 60, 80] and distances to left, top, right, bottom [n, 4, 60, 80] in units.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quarter = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), Residual(32))
        self.eighth = nn.Sequential(Conv(32, 64, 3, 2), Residual(64))
        self.sixteenth = nn.Sequential(Conv(64, 96, 3, 2), Residual(96), Residual(96))
        self.down = nn.Conv2d(96, 64, 1)
        self.middle = nn.Sequential(Conv(64, 64), nn.Conv2d(64, 32, 1))
        self.head = nn.Sequential(Conv(32, 40), nn.Conv2d(40, 5, 1))
        nn.init.constant_(self.head[1].bias[0], -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x - 116.0) / 58.0
        fine = self.quarter(x)
        middle = self.eighth(fine)
        coarse = self.down(self.sixteenth(middle))
        middle = torch.relu(middle + nn_f.interpolate(coarse, scale_factor=2.0))
        fine = torch.relu(fine + nn_f.interpolate(self.middle(middle), scale_factor=2.0))
        out = self.head(fine)
        return out[:, :1], nn_f.softplus(out[:, 1:])


class DetectorServed(nn.Module):
    """The detector as it is served: uint8 [n, 480, 640, 3] to boxes [n, 32, 4], scores [n, 32]."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = nn_f.avg_pool2d(image.to(torch.float32).permute(0, 3, 1, 2), 2)
        logits, sides = self.detector(x)
        heat = torch.sigmoid(logits)
        peak = (heat >= nn_f.max_pool2d(heat, 3, 1, 1)).to(torch.float32)
        scores, cells = torch.topk((heat * peak).flatten(1), FOUND)
        column = (cells % 80).to(torch.float32)
        row = torch.div(cells, 80, rounding_mode="floor").to(torch.float32)
        centre = torch.stack([column, row], -1) * STRIDE + STRIDE / 2
        at = cells.unsqueeze(1).expand(-1, 4, -1)
        side = torch.gather(sides.flatten(2), 2, at).transpose(1, 2) * UNIT
        low = torch.clamp(centre - side[..., :2], min=0.0)
        high = centre + side[..., 2:]
        right = torch.clamp(high[..., :1], max=640.0)
        bottom = torch.clamp(high[..., 1:], max=480.0)
        boxes = torch.cat([low, right, bottom], -1)
        scores = scores * self._alone(boxes)
        scores, order = torch.topk(scores, FOUND)
        return torch.gather(boxes, 1, order.unsqueeze(-1).expand(-1, -1, 4)), scores

    @staticmethod
    def _alone(boxes: Tensor) -> Tensor:
        """Say which boxes overlap no better one: 1 or 0, [n, 32]. Boxes come best first."""
        first, second = boxes.unsqueeze(2), boxes.unsqueeze(1)
        low = torch.maximum(first[..., :2], second[..., :2])
        high = torch.minimum(first[..., 2:], second[..., 2:])
        shared = torch.clamp(high - low, min=0.0).prod(-1)
        area = torch.clamp(boxes[..., 2:] - boxes[..., :2], min=0.0).prod(-1)
        overlap = shared / (area.unsqueeze(2) + area.unsqueeze(1) - shared + 1e-6)
        better = torch.triu(torch.ones(FOUND, FOUND), 1).unsqueeze(0)
        return ((overlap * better).amax(1) < 0.5).to(torch.float32)


class Grader(nn.Module):
    """Finds the leaf and its lesions on a coarse map, then grades by how much is covered.

    Takes [n, 3, 96, 96] RGB in 0..255; gives, of each disease it knows, logits [n, d, 4], and
    the maps they are computed from, logits [n, 1 + d, 24, 24] (the leaf first).
    """

    def __init__(self, diseases: int, width: int) -> None:
        super().__init__()
        self.start = nn.Sequential(Conv(3, width // 2, 3, 2), Conv(width // 2, width // 2))
        self.fine = nn.Sequential(Conv(width // 2, width, 3, 2), Residual(width))
        self.wide = nn.Sequential(
            Conv(width, width, 3, 2), Residual(width), nn.Conv2d(width, width, 1)
        )
        self.leaf = nn.Sequential(Conv(width, 16), nn.Conv2d(16, 1, 1))
        self.maps = nn.ModuleList(
            nn.Sequential(Conv(width, 16), nn.Conv2d(16, 1, 1)) for _ in range(diseases)
        )
        self.verdicts = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 4)) for _ in range(diseases)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x - 116.0) / 58.0
        fine = self.fine(self.start(x))
        fine = torch.relu(fine + nn_f.interpolate(self.wide(fine), scale_factor=2.0))
        leaf = self.leaf(fine)
        on_leaf = torch.sigmoid(leaf).mean((2, 3))
        maps, verdicts = [leaf], []
        for make_map, judge in zip(self.maps, self.verdicts, strict=True):
            found = make_map(fine)
            part = torch.sigmoid(found).mean((2, 3)) / (on_leaf + 1e-3)
            seen = torch.cat([8 * part, torch.log(part + 2e-3), on_leaf], 1)
            maps.append(found)
            verdicts.append(judge(seen))
        return torch.stack(verdicts, 1), torch.cat(maps, 1)

    def only(self, disease: int) -> Grader:
        """Return a grader of one disease that answers as this one does."""
        one = Grader(1, self.leaf[0][0].in_channels)
        for name in ("start", "fine", "wide", "leaf"):
            getattr(one, name).load_state_dict(getattr(self, name).state_dict())
        one.maps[0].load_state_dict(self.maps[disease].state_dict())
        one.verdicts[0].load_state_dict(self.verdicts[disease].state_dict())
        return one


class GraderServed(nn.Module):
    """A grader of one disease as it is served: uint8 [n, 96, 96, 3] to probabilities [n, 4]."""

    def __init__(self, grader: Grader) -> None:
        super().__init__()
        self.grader = grader

    def forward(self, image: Tensor) -> Tensor:
        logits, _ = self.grader(image.to(torch.float32).permute(0, 3, 1, 2))
        return torch.softmax(logits[:, 0], -1)
