"""The wheel holds `barflow` alone, and commands that other packages register fail with one clear line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [path.parent.name for path in ROOT.glob("*/__init__.py")]
METADATA = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "requirements.in")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
# Python without site-packages and their .pth files: the wheel, then the packages that it depends on.
RUN = "import sys; sys.path += sys.argv[1:3]; sys.argv[:3] = ['barflow']; from barflow.cli.main import main; main()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked as pip does."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in METADATA:
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(source)], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(target)
    return target


def barflow(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `barflow` of the wheel alone, in a folder outside the checkout."""
    command = [sys.executable, "-I", "-S", "-c", RUN, str(installed), sysconfig.get_path("purelib"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_wheel_holds_barflow_alone(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"barflow"}
    for data in (
        "py.typed",
        "market/sessions_xnys.csv",
        "market/instruments.toml",
        "alerts/alerts.toml",
        "operations/runbook.md.j2",
    ):
        assert (installed / "barflow" / data).exists(), data


@pytest.mark.parametrize(
    ("command", "room"),
    [
        (["demo", "--symbols", "AAPL", "--json"], "local"),
        (["dashboard", "--port", "0"], "dashboard"),
        (["runbook", "--env", "dev"], "stacks"),
        (["cost", "--help"], "config"),
    ],
)
def test_a_command_of_a_room_that_is_not_installed_fails_in_one_line(
    installed: Path, tmp_path: Path, command: list[str], room: str
) -> None:
    done = barflow(installed, tmp_path, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: `barflow {command[0]}` is not in this installation: it is in the folder {room}/ of the repository. "
        f"Clone the repository, run `make setup`, then run `.venv/bin/barflow {command[0]}`.\n"
    )


def test_a_state_folder_needs_the_embedded_services(installed: Path, tmp_path: Path) -> None:
    done = barflow(installed, tmp_path, "status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: the embedded services are not in this installation")
    assert "Set BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN and BARFLOW_LAKE_URI" in done.stderr


def test_the_help_lists_every_command_and_marks_those_that_are_not_installed(installed: Path, tmp_path: Path) -> None:
    done = barflow(installed, tmp_path, "--help")
    commands = dict(line.split(maxsplit=1) for line in done.stdout.split("Commands:\n")[1].splitlines())
    assert list(commands)[:3] == ["demo", "ingest", "process"]
    missing = {name for name, help_line in commands.items() if help_line.startswith("Not installed: needs")}
    assert missing == {"demo", "dashboard", "preflight", "runbook", "cost"}


def test_a_command_of_the_library_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = barflow(installed, tmp_path, "alerts", "rules", "--json")
    assert done.returncode == 0, done.stderr
    assert '"id": "gap_5pct"' in done.stdout
