"""A model's config.pbtxt as a dict, with the field names of Triton's ModelConfig."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from mqinfer.errors import ConfigurationError

_UNKNOWN = re.compile(
    r'(?P<kind>Message|Enum) type "(?P<type>[\w.]+)" has no (?:field|value) named "?(?P<name>\w+)'
)


def read(file: Path) -> dict[str, Any]:
    """Give what is written in the file, and nothing else; int64 fields are texts, as in JSON.

    Raises:
        ConfigurationError: it cannot be read, and where.
    """
    found: dict[str, Any] = json_format.MessageToDict(
        parsed(file), preserving_proto_field_name=True
    )
    return found


def parsed(file: Path) -> Any:
    """Give what is written in the file as Triton's ModelConfig.

    Raises:
        ConfigurationError: it cannot be read, and where.
    """
    try:
        return text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        where = f"line {error.GetLine()}, column {error.GetColumn()}: "
        text = str(error).partition(" : ")[2] or str(error)
        raise ConfigurationError(
            f"{file.name} cannot be read: {where}{text}{_meant(text)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file.name} cannot be read: {error}") from None


def _meant(text: str) -> str:
    """The field or value that may have been meant by what protobuf does not know; "" if none."""
    found = _UNKNOWN.search(text)
    if found is None:
        return ""
    types = model_config_pb2.DESCRIPTOR.pool
    if found["kind"] == "Message":
        known = types.FindMessageTypeByName(found["type"]).fields_by_name
    else:
        known = types.FindEnumTypeByName(found["type"]).values_by_name
    close = difflib.get_close_matches(found["name"], known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
