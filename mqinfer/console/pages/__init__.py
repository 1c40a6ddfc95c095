"""Pages: one module each, with the template of its name; in the order of the navigation."""

from __future__ import annotations

from typing import Final

from mqinfer.console.page import Page
from mqinfer.console.pages import labels, letters, pipeline, requests, runs

PAGES: Final[tuple[Page, ...]] = (
    pipeline.PAGE,
    letters.PAGE,
    labels.PAGE,
    runs.PAGE,
    requests.PAGE,
)
