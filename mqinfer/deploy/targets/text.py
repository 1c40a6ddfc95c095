"""Text: values as YAML, as people write it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mqinfer.errors import ConfigurationError

HEAD = "# Made by `mqinfer deploy render`: change deploy.toml, and make it anew.\n"


def yaml(documents: Iterable[Any]) -> str:
    """Documents of one file.

    Raises:
        ConfigurationError: PyYAML is not installed.
    """
    try:
        import yaml as library
    except ImportError:
        raise ConfigurationError(
            "PyYAML is not installed, which writes these files: pip install 'mqinfer[deploy]'"
        ) from None

    class Dumper(library.SafeDumper):  # type: ignore[misc]
        """Lists under their key are indented; nothing is an alias of what was said before."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            del indentless
            return super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    parts = (
        library.dump(one, Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True)
        for one in documents
    )
    return HEAD + "---\n".join(parts)
