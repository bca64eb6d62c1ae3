"""Run every check of this machine, its settings and its services, each as soon as the last one is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from barflow.alerts.rules_file import load_rules
from barflow.errors import BarflowError
from barflow.market.instruments import load_instruments
from barflow.operations.checks import Check
from barflow.operations.deployment import open_stores
from barflow.operations.doctor.machine import check_machine
from barflow.operations.doctor.stores import LAKE, MONGODB, WAREHOUSE, check_lake, check_mongodb, check_warehouse
from barflow.operations.doctor.vendor import KEY, check_vendor
from barflow.settings import Settings, load_settings, variable_of

# The check of each store, by its setting, and the embedded part that replaces it.
STORES = {
    "mongodb_uri": (MONGODB, check_mongodb, "an embedded MongoDB"),
    "warehouse_dsn": (WAREHOUSE, check_warehouse, "an embedded PostgreSQL"),
    "lake_uri": (LAKE, check_lake, "the folder lake"),
}
SIMILAR = 0.85


def run(state: Path, clock: Callable[[], datetime], *, vendor: bool, embedded: bool) -> Iterator[Check]:
    """Yield every check.

    Args:
        state: The state folder of the embedded services.
        clock: The clock of this machine (UTC).
        vendor: Whether to call Twelve Data, which costs one credit.
        embedded: Whether the embedded services are in this installation.
    """
    yield from check_machine(state)
    subject = "settings"
    try:
        settings = load_settings()
        yield Check(subject, True, _given())
        if settings.env != "local":
            subject = "deployment"
            settings = open_stores(settings.env)[0].settings
            yield Check(subject, True, f"its stores are those of {settings.env}")
    except BarflowError as error:
        yield Check(subject, False, str(error))
        return
    yield from mistyped()
    yield _check_rules(settings)
    yield _check_instruments(settings)
    for name, (title, check, part) in STORES.items():
        if getattr(settings, name):
            yield check(settings, writes=settings.env == "local")
        elif embedded:
            found = f"not checked: {variable_of(name)} is not set; commands use {part} in {state}"
            yield Check(title, True, found, checked=False)
        else:
            found = f"{variable_of(name)} is not set, and the embedded services are not in this installation"
            yield Check(title, False, found, f"set {variable_of(name)}, or run barflow from a checkout")
    if not vendor:
        yield Check(KEY, True, "not checked: --no-vendor", checked=False)
    elif not settings.twelvedata_api_key:
        found = "not checked: TWELVEDATA_API_KEY is not set; `barflow demo` uses synthetic bars"
        yield Check(KEY, True, found, checked=False)
    else:
        yield from check_vendor(settings, clock)


def _given() -> str:
    names = [name for name in map(variable_of, Settings.model_fields) if os.environ.get(name)]
    return f"set: {', '.join(names)}" if names else "none is set; every default is in use"


def mistyped() -> Iterator[Check]:
    """Yield a note for each variable whose name is almost that of a setting."""
    names = [variable_of(name) for name in Settings.model_fields]
    for name in sorted(os.environ.keys() - set(names)):
        if name.startswith(("BARFLOW_", "TWELVE")) and (near := get_close_matches(name, names, 1, SIMILAR)):
            yield Check("settings", True, f"{name} is not a setting", f"did you mean {near[0]}?")


def _check_rules(settings: Settings) -> Check:
    try:
        rules = load_rules(settings.alerts_file)
        rules.check_others(settings.symbols, load_instruments(settings.instruments_file))
    except BarflowError as error:
        return Check("alert rules", False, str(error))
    return Check("alert rules", True, f"{len(rules.all)} from {settings.alerts_file or 'the package'}")


def _check_instruments(settings: Settings) -> Check:
    try:
        renamed = load_instruments(settings.instruments_file).former
    except BarflowError as error:
        return Check("instruments", False, str(error))
    return Check(
        "instruments", True, f"{len(renamed)} former symbols from {settings.instruments_file or 'the package'}"
    )
