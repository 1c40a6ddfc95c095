"""`python -m tests.firsthour.errors`: makes every mistake and prints what is told, as a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


class _Table:
    """Prints what each test recorded."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, int | None, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep it."""
        if report.when == "call":
            self._rows += [told for name, told in report.user_properties if name == "told"]  # type: ignore[misc]

    def pytest_sessionfinish(self) -> None:
        """Print."""
        print("\n| mistake | done | exit code | told |\n|---|---|---|---|")
        for name, what, code, line in self._rows:
            cells = (name, f"`{what}`", "raised" if code is None else str(code), line)
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


if __name__ == "__main__":
    file = Path(__file__).with_name("test_errors.py")
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(file)], plugins=[_Table()]))
