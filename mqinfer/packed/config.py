"""The config.pbtxt of a packed model: written with its first version, which later ones must fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mqinfer.errors import ConfigurationError

# Name, type and sides of the tensors, by `input` and `output`.
Entries = Mapping[str, Sequence[tuple[str, str, Sequence[int]]]]


def text(name: str, backend: str, entries: Entries, max_batch: int) -> str:
    """A configuration.

    Args:
        name: of the model.
        backend: Triton's, `python` or `onnxruntime`.
        entries: its tensors.
        max_batch: the most items of one run; 0 for a model that takes one without a batch.
    """
    lines = [
        "# Written by `mqinfer models pack`, and yours to change.",
        f'name: "{name}"',
        f'backend: "{backend}"',
        f"max_batch_size: {max_batch}",
    ]
    for way, tensors in entries.items():
        for label, kind, sides in tensors:
            dims = ", ".join(map(str, sides))
            lines.append(f'{way} {{ name: "{label}" data_type: {kind} dims: [ {dims} ] }}')
    if max_batch > 1:
        lines.append("dynamic_batching { }")
    lines += [
        "# Each is a process of its own.",
        "instance_group [ { kind: KIND_CPU count: 1 } ]",
        "# All versions are served side by side, so that a replay can compare two.",
        "version_policy: { all { } }",
    ]
    return "\n".join(lines) + "\n"


def require_same(file: Path, backend: str, entries: Entries) -> None:
    """Refuse another version in a folder whose configuration does not fit it.

    Raises:
        ConfigurationError: it says something else, or cannot be read.
    """
    from mqinfer.adapters import tritonconfig

    there = tritonconfig.read(file)
    instead = "pack it under another name (--to), or --force rewrites it for all versions"
    if there.get("backend", backend) != backend:
        raise ConfigurationError(
            f"{file} is of a model of the backend {there['backend']}, not {backend}: {instead}"
        )
    for way, tensors in entries.items():
        written = {
            one["name"]: (one["data_type"], [int(side) for side in one.get("dims", [])])
            for one in there.get(way, [])
        }
        wanted = {label: (kind, list(sides)) for label, kind, sides in tensors}
        if written and written != wanted:
            raise ConfigurationError(
                f"{file} says the {way}s {_said(written)}, this version has {_said(wanted)}: "
                f"{instead}"
            )


def _said(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> str:
    parts = (f"{name} {kind} {list(sides)}" for name, (kind, sides) in sorted(tensors.items()))
    return ", ".join(parts)
