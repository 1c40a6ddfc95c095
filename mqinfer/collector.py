"""The garbage collector of a process that handles messages; set by commands, not by the library.

A message leaves no reference cycles, but its objects count as allocations, and every 700 of those
the collector looks for cycles: a tenth of the time of a stage that does little itself. What was
imported lives as long as the process, so it need not be looked at.
"""

from __future__ import annotations

import gc


def tune_collector() -> None:
    """Leave what is imported alone, and look for cycles less often."""
    gc.collect()
    gc.freeze()
    collect_less()


def collect_less() -> None:
    """Look for cycles less often: what a start imports makes many objects, and none of them."""
    gc.set_threshold(25_000, 20, 20)
