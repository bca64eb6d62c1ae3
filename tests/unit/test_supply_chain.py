"""What is installed is what the lock files name, by hash; NOTICE names all of it; and the locks are audited weekly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import notice

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    ROOT / "Makefile",
    *sorted(ROOT.glob(".github/workflows/*.yml")),
    *(path for room in ("spark", "glue", "orchestration") for path in sorted((ROOT / room).rglob("*.sh"))),
]
LOCKS = sorted(path for pattern in ("", "*/", "*/*/") for path in ROOT.glob(f"{pattern}requirements*.txt"))
LOCKS = [path for path in LOCKS if path.relative_to(ROOT).parts[0] not in (".venv", "build", "node_modules")]
AUDIT: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "audit.yml").read_text())
# `-e .` installs this repository itself.
INSTALL = re.compile(r"\bpip install\b(?!.* -e \.)")
TRIGGERS = True  # YAML 1.1 reads the key `on` as true


def commands(path: Path) -> list[str]:
    """Return the commands of a script. One that continues on the next line is one."""
    return path.read_text().replace("\\\n", " ").splitlines()


def test_every_package_is_installed_by_its_hash() -> None:
    found = [line for path in SCRIPTS for line in commands(path) if INSTALL.search(line)]
    assert len(found) >= 6
    assert [line for line in found if "--require-hashes" not in line] == []


def test_npm_installs_only_what_its_lock_names_by_hash() -> None:
    assert not any(re.search(r"npm (?:install|i|update)\b", line) for path in SCRIPTS for line in commands(path))
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if name and "sha512-" not in package.get("integrity", "")] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.relative_to(ROOT).as_posix())
def test_a_lock_pins_every_package_with_hashes(lock: Path) -> None:
    packages = [line for line in commands(lock) if line and not line.startswith((" ", "#"))]
    assert packages
    assert [line for line in packages if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:", line)] == []


def test_the_audit_covers_every_lock_each_week() -> None:
    (pattern,) = re.findall(r"^LOCKS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {path for item in pattern.split() for path in ROOT.glob(item)} >= set(LOCKS)
    (job,) = AUDIT["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make audit"]
    assert job["permissions"] == {"contents": "read"}
    assert re.fullmatch(r"\d+ \d+ \* \* MON", AUDIT[TRIGGERS]["schedule"][0]["cron"])


def test_the_notice_is_current() -> None:
    assert notice.text() == notice.NOTICE.read_text(), "run make notice"


def test_nothing_that_is_deployed_requires_to_publish_the_source_of_barflow() -> None:
    rows = [line.split(" | ") for line in notice.NOTICE.read_text().splitlines() if line.startswith("  ")]
    deployed = {name.strip(): licence for name, place, licence in rows if place != notice.DEVELOPMENT}
    assert {"psycopg", "lightweight-charts", "apache-airflow"} <= deployed.keys()
    copyleft = re.compile(r"(?<![L\w])A?GPL|GNU (?:Affero )?General")
    # EPL-2.0 OR GPL-2.0-or-later: the user chooses.
    assert [name for name, licence in deployed.items() if copyleft.search(licence)] == ["asyncssh"]
