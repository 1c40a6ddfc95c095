"""What can be seen from outside: logs and metrics, in one place.

The metrics themselves are in `mqinfer.metrics`; whoever uses them imports them from here. Traces
are the user's: `flow.emitter` hands their headers on as they came.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import IO, Any

import structlog

from mqinfer.counts import Histogram, SinkMetrics
from mqinfer.masking import mask_url
from mqinfer.metrics import Metrics, StageMetrics

__all__ = [
    "Histogram",
    "Metrics",
    "SinkMetrics",
    "StageMetrics",
    "configure_logging",
    "redact",
]

# --- logs -----------------------------------------------------------------------------------------

_SECRET_KEY = re.compile(
    r"(?i)(?:^|[_-])(?:password|passwd|secret|token|authorization|api_?key|access_?key|nkey|seed|"
    r"credentials?|creds)$"
)
_SEED = re.compile(r"\bS[ACNOUX][A-Z2-7]{56}\b")  # an nkey seed in the middle of a text
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+")


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: secrets in names, URLs, seeds and tokens become `***`."""
    return {key: _redacted(key, value, 4) for key, value in event.items()}


def _redacted(key: object, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        if isinstance(key, str) and _SECRET_KEY.search(key):
            return "***"
        if "://" in value:
            value = mask_url(value)
        return _JWT.sub("***", _SEED.sub("***", value))
    if depth and isinstance(value, Mapping):
        return {name: _redacted(name, item, depth - 1) for name, item in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_redacted(key, item, depth - 1) for item in value]
    if isinstance(value, bytes) and isinstance(key, str) and _SECRET_KEY.search(key):
        return "***"
    return value


def _json(event: Any, **_options: Any) -> str:
    """One line of JSON, whatever is in it: a log call must never fail."""
    try:
        return json.dumps(event, default=repr)
    except (TypeError, ValueError):  # a key that is no text, a circle
        return json.dumps({str(key): repr(value) for key, value in event.items()})


def configure_logging(
    level: str = "info",
    format: str = "auto",  # noqa: A002 - the word users know
    *,
    stream: IO[str] | None = None,
) -> None:
    """Send structlog's and the standard library's logs to stderr in one form.

    Libraries are logged from warnings on, in debug from info on. May be called again.

    Args:
        level: debug, info, warning, error or critical.
        format: `json` (one object a line), `console`, or `auto`: console on a terminal.
        stream: instead of stderr.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    if format == "auto":
        format = "console" if stream.isatty() else "json"  # noqa: A001
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.UnicodeDecoder(),
    ]
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    # A traceback becomes text before the secrets are taken out, for it may hold some.
    final += [structlog.processors.format_exc_info, redact]
    if format == "json":
        final.append(structlog.processors.JSONRenderer(serializer=_json))
    else:
        plain = structlog.dev.plain_traceback
        final.append(
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final)
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if getattr(known, "_mqinfer", False)]:
        root.removeHandler(old)
    handler._mqinfer = True  # type: ignore[attr-defined]  # ours: a second call replaces it
    root.addHandler(handler)
    root.setLevel(logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.getLogger("mqinfer").setLevel(number)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
