"""The app of the case study, for `mqinfer worker examples.plants.app:app`."""

from stages.plants import app

__all__ = ["app"]
