"""Pictures: what generated messages carry as blobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mqinfer.errors import ConfigurationError

_WIDTH, _HEIGHT = 640, 480
_SYNTHETIC = 8  # different ones
_MOST = 64  # files that are read


def pictures(folder: Path | None) -> Callable[[int], bytes]:
    """Makes the n-th picture: a file of a folder, or a synthetic JPEG of 640 x 480.

    Raises:
        ConfigurationError: the folder has no files.
    """
    if folder is None:
        made: dict[int, bytes] = {}

        def synthetic(number: int) -> bytes:
            number %= _SYNTHETIC
            if number not in made:
                made[number] = _picture(number)
            return made[number]

        return synthetic
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())[:_MOST]
    except OSError as error:
        raise ConfigurationError(f"--pictures {folder}: {error.strerror}") from None
    if not files:
        raise ConfigurationError(f"--pictures {folder}: there is no file in it")
    contents = [path.read_bytes() for path in files]
    return lambda number: contents[number % len(contents)]


def _picture(number: int) -> bytes:
    """Gradients with noise, which compress about as photographs do."""
    import numpy as np

    from mqinfer.image import encode_jpeg

    random = np.random.default_rng(number)
    x, y = np.meshgrid(np.linspace(0, 255, _WIDTH), np.linspace(0, 255, _HEIGHT))
    plain = np.stack([x, y, (x + y) / 2], axis=-1)
    noise = random.normal(0, 12, plain.shape)
    return encode_jpeg(np.clip(plain + noise, 0, 255).astype(np.uint8))
