"""A network of float32 as one of int8, calibrated on pictures: quicker, and nearly the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST = 0.8
"""Of pictures on which both must agree."""


class Disagrees(RuntimeError):
    """What was made of a network says something else than it."""


def quantize(plain: Path, target: Path, shown: Iterable[Array], others: Array) -> float:
    """Write the int8 form of a network: scales of 8 bits around each operation (QDQ).

    Args:
        plain: ONNX of float32, from `image`, uint8 `[n, side, side, 3]`, to `logits`.
        target: the file to write.
        shown: pictures that the scales are measured on.
        others: pictures, `[n, side, side, 3]`, on which both are compared.

    Returns:
        Of how many of the others the likeliest class is the same, 0 to 1.

    Raises:
        Disagrees: of fewer than `LEAST`.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    left: Iterator[Array] = iter(shown)

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            picture = next(left, None)
            return None if picture is None else {"image": picture[None]}

    quantize_static(
        plain,
        target,
        Pictures(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Clip", "Add", "GlobalAveragePool", "Gemm"],
    )
    agree = float(np.mean(_best(plain, others) == _best(target, others)))
    if agree < LEAST:
        raise Disagrees(f"{plain.stem}: int8 agrees with float32 on {agree:.0%} of the photographs")
    return agree


def _best(path: Path, pictures: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": pictures})
    best: Array = logits.argmax(axis=1)
    return best
