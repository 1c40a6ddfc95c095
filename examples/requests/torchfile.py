"""Reads the weights in a PyTorch file without PyTorch, running nothing that a pickle may hold."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class _Tensor(NamedTuple):
    """A tensor as the pickle tells of it: a view into a storage that follows later in the file."""

    storage: tuple[str, str, str, str, int, Any]  # "storage", dtype, key, device, elements, view
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Restricted(pickle.Unpickler):
    """Knows ordered dictionaries and tensors, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *parts: _Tensor(*parts[:4])
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_weights(file: IO[bytes]) -> dict[str, Array]:
    """The tensors of a state dictionary by name.

    Args:
        file: in the format that PyTorch wrote before 1.6: pickles, then the raw storages.

    Raises:
        pickle.UnpicklingError: it is another format, or holds more than tensors.
    """
    if _Restricted(file).load() != _MAGIC:
        raise pickle.UnpicklingError("this is no PyTorch file of the format before 1.6")
    for _ in ("version of the format", "sizes of C types"):
        _Restricted(file).load()
    tensors: dict[str, _Tensor] = _Restricted(file).load()
    dtypes = {t.storage[2]: np.dtype(_DTYPES[t.storage[1]]) for t in tensors.values()}
    storages: dict[str, Array] = {}
    for key in _Restricted(file).load():
        elements = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(elements * dtypes[key].itemsize), dtypes[key])
    return {name: _array(storages[tensor.storage[2]], tensor) for name, tensor in tensors.items()}


def _array(storage: Array, tensor: _Tensor) -> Array:
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= storage.size:
        raise pickle.UnpicklingError(f"a tensor {tensor.shape} reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view)
