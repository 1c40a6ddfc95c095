"""Reasons: why a model did not load, on one line, out of what the server's index says."""

from __future__ import annotations

import re

# What the server puts before the words of whoever refused to load the model.
_CODE = re.compile(r"^(Internal|Invalid argument|Unavailable|Not found|Unsupported|Unknown): ")
_RAISED = "TritonModelException: "
# The Python backend's list of the places that an exception passed, innermost first.
_PLACES = re.compile(r"\s*\n+At:\n(?P<places>.*)", re.DOTALL)
_PLACE = re.compile(r"^\s*(?P<file>[^<\n]*)\((?P<line>\d+)\): ", re.MULTILINE)

# Of a model that the index lists without a version: not even its configuration was taken.
NOT_TAKEN = (
    "its folder cannot be used: its config.pbtxt or the name in it is wrong, or it has no version "
    "folder with a model file (the server's log says which)"
)


def why(reason: str, version: str = "1") -> str:
    """The reason in words; of an exception in a model's own code, with the line that raised it.

    Args:
        reason: as the index has it; "" where it has none.
        version: that did not load, "" where none was found.
    """
    if not reason:
        return "" if version else NOT_TAKEN
    places = _PLACES.search(reason)
    text = _CODE.sub("", reason[: places.start()] if places else reason)
    if text.startswith(_RAISED):
        text = text.removeprefix(_RAISED)
    elif places and (place := _PLACE.search(places["places"])):
        text = f"{text} ({place['file'].rpartition('/')[2]}, line {place['line']})"
    return " ".join(text.split())
