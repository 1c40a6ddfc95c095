"""Rendering: templates, with every value escaped, and how times, sizes and numbers are written.

Autoescape is on for all of it. What is `Markup` here is made of numbers and times alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mqinfer.times import span

_FOLDER = Path(__file__).parent
_JUST_NOW = 1.5  # seconds
_NONE = "\N{EN DASH}"  # where there is no value


@cache
def build() -> str:
    """Of the templates and files as they are here: a page of another one is read anew."""
    found = sha256()
    for part in ("templates", "static"):
        for path in sorted((_FOLDER / part).iterdir()):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


@cache
def environment() -> Environment:
    """The templates."""
    found = Environment(
        loader=PackageLoader("mqinfer.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=number,
        percent=percent,
        size=size,
        span=span,
        seconds=seconds,
        ago=ago,
        moment=moment,
        rate=rate,
        brief=brief,
    )
    found.globals.update(static=static, at=address, picture=picture)
    parts = found.get_template("parts.html").module
    # Everywhere, since a block that is rendered alone sees nothing that its template imports.
    found.globals.update({name: getattr(parts, name) for name in ("badge", "bar", "plot", "pager")})
    return found


def page(template: str, context: Mapping[str, Any]) -> str:
    """A whole page, or part of one that has a template of its own."""
    return environment().get_template(template).render(context)


def block(template: str, name: str, context: Mapping[str, Any]) -> str:
    """One block of a template alone."""
    found = environment().get_template(template)
    return "".join(found.blocks[name](found.new_context(dict(context))))


# --- addresses ----------------------------------------------------------------------------------


def static(name: str) -> str:
    """The address of a file of ours, another one whenever it changes."""
    return f"/static/{name}?v={build()}"


def address(page: str, /, *others: Mapping[str, Any], **filters: Any) -> str:
    """A page of ours with filters; a later one replaces an earlier, None leaves one out."""
    chosen: dict[str, Any] = {}
    for one in (*others, filters):
        chosen.update(one)
    text = urlencode({name: value for name, value in chosen.items() if value not in (None, "")})
    return f"{page}?{text}" if text else page


def picture(path: str, side: int = 320) -> str:
    """The address of a picture in the blob store, made smaller."""
    return address("/picture", path=path, side=side)


# --- numbers and times --------------------------------------------------------------------------


def number(value: float | None, digits: int = 0) -> str:
    """A number with its thousands apart; a dash where there is none."""
    return _NONE if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """Something a second; a dash where it is not known yet."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:,.1f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share."""
    return _NONE if value is None else f"{value:.{digits}%}"


def seconds(value: float | None) -> str:
    """What took so many seconds, to the millisecond where it was short."""
    if value is None:
        return _NONE
    short = max(0.0, value)
    if short >= 120:
        return span(short)
    return f"{short:.1f} s" if short >= 1 else f"{1000 * short:.0f} ms"


def brief(value: object, most: int = 60) -> str:
    """A value of a row: numbers to four digits, texts cut; a dash where there is none."""
    if value is None:
        return _NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return (text if len(text) <= most else text[: most - 1] + "…") or "(empty)"


def size(count: float | None) -> str:
    """Bytes."""
    if count is None:
        return _NONE
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def ago(moment: datetime.datetime | float | None, now: datetime.datetime | None = None) -> Markup:
    """How long ago, with the time itself for whoever wants it."""
    if not moment:
        return Markup(_NONE)
    when = _utc(moment)
    passed = ((now or datetime.datetime.now(datetime.UTC)) - when).total_seconds()
    text = "just now" if abs(passed) < _JUST_NOW else f"{span(abs(passed))} ago"
    if passed <= -_JUST_NOW:
        text = f"in {span(-passed)}"
    return _time(when, text)


def moment(when: datetime.datetime | float | None) -> Markup:
    """A time, in UTC; with its day where that is not today."""
    if not when:
        return Markup(_NONE)
    found = _utc(when)
    today = found.date() == datetime.datetime.now(datetime.UTC).date()
    return _time(found, f"{found:%H:%M:%S}" if today else f"{found:%Y-%m-%d %H:%M}")


def _utc(when: datetime.datetime | float) -> datetime.datetime:
    if isinstance(when, datetime.datetime):
        return when.astimezone(datetime.UTC)
    return datetime.datetime.fromtimestamp(when, datetime.UTC)


def _time(when: datetime.datetime, text: str) -> Markup:
    told = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(when.isoformat(), told, text)
