"""What is wrong with a model's folder that Triton does not take: its index gives no reason."""

from __future__ import annotations

from pathlib import Path

from mqinfer.errors import ConfigurationError

# The files that Triton takes for a model without a configuration, by name.
_KNOWN = ("model.onnx", "model.py", "model.pt", "model.plan", "model.savedmodel", "model.json")


def flaw(folder: Path) -> str | None:
    """Why Triton would not even begin to load a model; None where nothing is seen.

    Args:
        folder: of the model, in the repository.
    """
    from mqinfer.adapters import tritonconfig

    if not folder.is_dir():
        return None
    file = folder / "config.pbtxt"
    try:
        config = tritonconfig.read(file) if file.exists() else {}
    except ConfigurationError as error:
        return str(error)
    name = config.get("name", folder.name)
    if name != folder.name:
        return f"config.pbtxt has the name {name!r}, which must be the folder's, {folder.name!r}"
    versions = [one for one in folder.iterdir() if one.is_dir() and one.name.isdigit()]
    if not versions:
        return f"it has no version folder: the model's file belongs into {folder.name}/1/"
    said = config.keys() & {"backend", "platform"}
    if not said and not any((one / known).exists() for one in versions for known in _KNOWN):
        there = ", ".join(sorted(path.name for one in versions for path in one.iterdir()))
        return (
            f"no backend is known for it: its version folder has {there or 'nothing'}, no "
            "model.onnx or model.py; or say the backend in config.pbtxt (other kinds of models: "
            "mqinfer models pack)"
        )
    return None
