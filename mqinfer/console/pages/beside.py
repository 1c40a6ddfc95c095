"""Beside: versions that answer beside the live one, or a share of it, on the page of the pipeline.

Which there are is read anew at each look; what a shadow says beside the live rows is a comparison
of tables, which nobody waits for: it is there when it is there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mqinfer.console.page import Form, of_form
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.inference.aliases import followed
from mqinfer.monitor.watched import watched
from mqinfer.shadow import told
from mqinfer.shadow.told import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.console.site import Site
    from mqinfer.inference.aliases import Alias
    from mqinfer.replay.run import Run
    from mqinfer.shadow.shadows import Shadow

_EVERY: Final = 20.0  # seconds between comparisons


async def beside(site: Site, named: Mapping[tuple[str, str], Alias] | None) -> dict[str, Any]:
    """Shadows with what they say, and canaries.

    Args:
        site: of the page.
        named: aliases that are set; None where they are not known.
    """
    pairs = set(followed(site.app))
    found: dict[str, Any] = {
        "shadows": [],
        "canaries": [one for key, one in (named or {}).items() if key in pairs and one.canary],
        "back": [one for key, one in (named or {}).items() if key in pairs and one.back],
        "labels": _labels(site),
        "problems": [],
    }
    if not site.app.rows:  # a shadow's answers are rows
        return found
    try:
        models = sorted({model.name for model in site.app.models.values()})
        standing = await site.shadows.standing(models)
    except MqinferError as error:
        found["problems"].append(f"the shadows: {error}")
        return found
    for shadow, run in standing:
        make = partial(_told, site, shadow, run)
        seen = site.looks.of(("shadow", run.name, run.open), make, _EVERY).known()
        one: Told = told.plain(shadow, run)
        if seen is not None and seen.problem is None:
            one = seen.state["found"]
        elif seen is not None:
            found["problems"].append(f"what shadow {run.name} says: {seen.problem}")
        found["shadows"].append(one)
    return found


async def _told(site: Site, shadow: Shadow, run: Run) -> Mapping[str, Any]:
    return {"found": await told.told(site.app, shadow, run, site.database)}


def _labels(site: Site) -> dict[str, str]:
    """A label of each model, where its versions stand side by side."""
    return {
        model: f"{one.row.__mqinfer__.table}.{field.column}"
        for one in watched(site.app)[0]
        for field in one.fields
        if field.what == "label"
        for model in (field.model, *(name for _, name in field.by_stage))
    }


# --- what can be done ---------------------------------------------------------------------------


async def end_shadow(site: Site, request: Request, form: Form) -> Response:
    """Let a shadow end with what is stored by now."""
    model = of_form(form, "model")
    run = await site.shadows.end(model)
    text = f"{model} has no shadow, once run {run.name} is through with what it was given"
    return site.said(request, text)


async def end_canary(site: Site, request: Request, form: Form) -> Response:
    """Take a canary back: the version that the alias names answers all again."""
    model, alias = site.canaries.alias_of(of_form(form, "name"))
    if not await site.canaries.take_back(model, alias):
        raise ConfigurationError(f"{model}@{alias} has no canary")
    text = f"the canary of {model}@{alias} is taken back; workers follow within two seconds"
    return site.said(request, text)


async def promote_canary(site: Site, request: Request, form: Form) -> Response:
    """Let an alias name its canary."""
    found = await site.canaries.promote(of_form(form, "name"))
    text = f"{found.model}@{found.alias} names {found.version}; workers follow within two seconds"
    return site.said(request, text)
