"""Units of the host: systemd accepts them, and they restrict their services."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_host import HOST, FakeHost

ANALYZE = shutil.which("systemd-analyze")
UNITS = sorted(path.name for path in (HOST / "units").iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
RUNNING = [name for name in SERVICES if name not in ("airflow-migrate.service", "barflow-settings.service",
                                                     "barflow-health.service", "barflow-replaced.service")]  # fmt: skip
# Targets of the operating system, which only have to exist.
TARGETS = ("sysinit", "basic", "shutdown", "network-online", "multi-user", "timers", "time-set", "time-sync")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")


class Unit(configparser.RawConfigParser):
    """A unit file. Of a repeated option it keeps the last value."""

    optionxform = staticmethod(str)  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        super().__init__(strict=False)
        self.read(HOST / "units" / name)


@pytest.fixture(scope="module")
def root(booted: tuple[FakeHost, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root folder with the installed units and empty programs for their commands."""
    made = tmp_path_factory.mktemp("root")
    shutil.copytree(booted[0].root / "etc/systemd", made / "etc/systemd")
    for target in TARGETS:
        (made / f"etc/systemd/system/{target}.target").write_text("[Unit]\nDescription=of the system\n")
    (made / "opt/barflow/venv/bin").mkdir(parents=True)
    for command in ("airflow", "barflow", "python"):
        shutil.copy("/bin/true", made / "opt/barflow/venv/bin" / command)
    return made


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments, f"--root={root}"], capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_each_unit(root: Path, unit: str) -> None:
    done = analyze(root, "verify", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_reports_a_wrong_unit(root: Path) -> None:
    wrong = (HOST / "units/barflow-dashboard.service").read_text().replace("RestartSec=", "RestartSeconds=")
    (root / "etc/systemd/system/barflow-wrong.service").write_text(wrong)
    assert "RestartSeconds" in analyze(root, "verify", "barflow-wrong.service").stderr


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_rates_every_service_as_well_restricted(root: Path, unit: str) -> None:
    """The scale goes from 0 (fully restricted) to 100; a service without restrictions has 96."""
    done = analyze(root, "security", "--offline=yes", "--no-pager", "--threshold=25", unit)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", RUNNING)
def test_a_service_always_restarts(unit: str) -> None:
    found = Unit(unit)
    assert found["Service"]["Restart"] == "always"
    assert found["Unit"]["StartLimitIntervalSec"] == "0", "otherwise systemd gives up after five tries"
    assert found["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_has_its_own_user_no_capability_and_a_memory_limit(unit: str) -> None:
    service = Unit(unit)["Service"]
    if unit == "barflow-settings.service":
        assert "User" not in service, "it changes the owner of files"
        assert service["CapabilityBoundingSet"] == "CAP_CHOWN"
    elif unit == "barflow-replaced.service":
        assert "User" not in service, "it stops and starts a service"
        assert service["CapabilityBoundingSet"] == ""
    else:
        assert service["User"] == service["Group"] == unit.split("-")[0]
        assert service["CapabilityBoundingSet"] == ""
    assert service["MemoryMax"].endswith("%")


@pytest.mark.parametrize("unit", [name for name in SERVICES if name != "barflow-settings.service"])
def test_a_service_starts_after_the_settings_and_restarts_with_them(unit: str) -> None:
    found = Unit(unit)
    assert "barflow-settings.service" in found["Unit"]["After"]
    if unit in RUNNING:
        assert found["Unit"]["PartOf"] == "barflow-settings.service"
    if unit.startswith("airflow-") and unit in RUNNING:
        assert "airflow-migrate.service" in found["Unit"]["After"]


@pytest.mark.parametrize("unit", SERVICES)
def test_no_unit_contains_a_secret(unit: str) -> None:
    service = Unit(unit)["Service"]
    assert "Environment" not in service
    assert service["EnvironmentFile"] in (
        "/etc/barflow/host.env",
        "/run/barflow/airflow.env",
        "/run/barflow/barflow.env",
    )
