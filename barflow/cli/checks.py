"""The end of a command that checks something: its results as lines or JSON, and its exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

import typer

from barflow.cli.common import log, print_json

if TYPE_CHECKING:
    from barflow.operations.checks import Check


def report_checks(
    checks: Iterable[Check], show: Callable[[Check], None], *, as_json: bool, advice: str = ""
) -> NoReturn:
    """Show each check when it is done, or all of them as one JSON object. Exit with 1 if a check failed, else with 0.

    ``advice`` follows the number of failed checks.
    """
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            show(check)
    failed = sum(not check.ok for check in found)
    if as_json:
        print_json({"ok": not failed, "checks": [check.to_json() for check in found]})
    elif failed:
        log(f"{failed} of {len(found)} checks failed{advice}")
    raise typer.Exit(1 if failed else 0)
