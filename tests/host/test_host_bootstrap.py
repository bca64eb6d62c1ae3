"""Does the bootstrap make the host out of its release, and leave alone what is as it should be?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from machine import HOST, Machine

from config import versions

SCRIPTS = sorted(HOST.glob("*.sh"))
# What a second run may call: questions, and what systemd ignores when it is so already.
ASKS = ("mountpoint -q", "swapon --show", "rpm -q", "getent passwd", "stat -c", "systemctl enable --now")
Booted = tuple[Machine, list[str]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_hosts_scripts_are_clean_shell(script: Path) -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(".venv/bin/shellcheck"))
    found = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert os.access(script, os.X_OK)


def test_it_refuses_to_guess_its_environment() -> None:
    found = subprocess.run(["bash", HOST / "bootstrap.sh"], capture_output=True, text=True, env={}, check=False)
    assert found.returncode != 0
    assert "BARFLOW_ENV" in found.stderr


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert [call for call in machine.boot() if not call.startswith(ASKS)]
    before = machine.files()
    calls = machine.boot()
    assert [call for call in calls if not call.startswith((*ASKS, "python -I"))] == []
    assert machine.files() == before


def test_a_changed_unit_restarts_the_services_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.boot()
    unit = machine.release / "orchestration/host/units/airflow-scheduler.service"
    unit.write_text(unit.read_text().replace("RestartSec=10", "RestartSec=11"))
    changes = [call for call in machine.boot() if not call.startswith((*ASKS, "python -I"))]
    assert changes == ["systemctl daemon-reload", "systemctl restart barflow-settings.service"]
    assert "RestartSec=11" in machine.text("/etc/systemd/system/airflow-scheduler.service")


def test_an_install_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.boot()
    (marker,) = machine.root.glob("opt/barflow/venvs/*/.complete")
    marker.unlink()
    half = marker.with_name("half")
    half.touch()
    assert any(call.startswith("uv pip install") for call in machine.boot())
    assert marker.exists()
    assert not half.exists()


def test_another_lock_is_another_environment_and_the_old_one_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.boot()
    old = (machine.root / "opt/barflow/venv").readlink()
    lock = machine.release / "orchestration/host/requirements.txt"
    lock.write_text(lock.read_text() + "\n# another\n")
    machine.boot()
    new = (machine.root / "opt/barflow/venv").readlink()
    assert new != old
    assert old.is_dir()


def test_packages_are_installed_by_the_locks_uv_with_their_hashes(booted: Booted) -> None:
    machine, calls = booted
    (pip,) = [call for call in calls if "-m pip install" in call]
    (uv,) = [call for call in calls if call.startswith("uv pip install")]
    assert "--require-hashes" in pip
    assert "--require-hashes" in uv
    assert uv.endswith("/orchestration/host/requirements.txt")
    (lines,) = [path.read_text().splitlines() for path in machine.root.glob("opt/barflow/venvs/*/uv.txt")]
    assert re.fullmatch(r"uv==[\d.]+ \\", lines[0])
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])
    assert not lines[-1].endswith("\\")


def test_the_released_library_is_what_the_environment_imports(booted: Booted) -> None:
    machine, _ = booted
    (path,) = machine.root.glob("opt/barflow/venvs/*/lib/python3.11/site-packages/barflow.pth")
    assert Path(path.read_text().strip()) == machine.release
    for needed in (
        *("barflow/cli/main.py", "barflow/market/sessions_xnys.csv", "barflow/alerts/alerts.toml", "dashboard/app.py"),
        *("dashboard/static/index.html", "sql"),
        "dashboard/static/vendor/lightweight-charts.standalone.production.mjs",
    ):
        assert (machine.release / needed).exists(), needed


def test_the_hosts_barflow_has_the_command_of_the_page_and_no_command_of_a_room_that_is_not_released(
    booted: Booted,
) -> None:
    machine, _ = booted
    (installed,) = machine.root.glob("opt/barflow/venvs/*/lib/python3.11/site-packages/barflow.dist-info")
    entries = PathDistribution(installed).entry_points.select(group="barflow.commands")
    assert set(entries) < set(distribution("barflow").entry_points.select(group="barflow.commands"))
    modules = {entry.name: machine.release / f"{entry.module.replace('.', '/')}.py" for entry in entries}
    assert set(modules) == {"dashboard"}, "the unit of the page runs it"
    assert modules["dashboard"].exists()


def test_the_hosts_python_is_that_of_the_locks(booted: Booted) -> None:
    _, calls = booted
    (dnf,) = [call for call in calls if call.startswith("dnf ")]
    assert f" python{versions.SPARK_PYTHON} " in dnf


def test_every_unit_is_installed_hardened_and_started(booted: Booted) -> None:
    machine, calls = booted
    units = {path.name for path in (HOST / "units").iterdir()}
    installed = machine.root / "etc/systemd/system"
    assert {path.name for path in installed.iterdir() if path.is_file()} == units
    for prefix in ("airflow", "barflow"):
        assert (installed / f"{prefix}-.service.d/hardened.conf").read_text() == (HOST / "hardened.conf").read_text()
    (started,) = [call.split()[4:] for call in calls if call.startswith("systemctl enable --now --quiet airflow-")]
    assert set(started) == units - {"barflow-health.service"}, "the check is its timer's to start"


def test_ssh_is_for_this_machine_and_for_one_user(booted: Booted) -> None:
    machine, _ = booted
    config = machine.text("/etc/ssh/sshd_config.d/10-barflow.conf").splitlines()
    assert {"ListenAddress 127.0.0.1", "AllowUsers barflow@127.0.0.1", "PasswordAuthentication no"} <= set(config)


def test_airflow_knows_the_machine_by_its_keys(booted: Booted) -> None:
    machine, _ = booted
    kind, key, _ = machine.text("/etc/ssh/ssh_host_ed25519_key.pub").split(" ")
    assert machine.text("/var/lib/barflow/airflow/.ssh/known_hosts").startswith(f"127.0.0.1 {kind} {key}")


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        ("barflow ingest --json", ["ingest", "--json"]),
        ("barflow backfill --symbols AAPL,BRK.B --start 2025-01-02 --end 2025-01-03", ["backfill", "--symbols"]),
        ("barflow backfill $(id) ; id", ["backfill", "$(id)", ";", "id"]),
        ("barflow ingest *", ["ingest", "*"]),
        *[(refused, None) for refused in ("barflow sql x", "bash", "", "barflow", "/usr/local/bin/barflow ingest")],
    ],
)
def test_the_ssh_key_runs_nothing_but_ingest_and_backfill(tmp_path: Path, asked: str, ran: list[str] | None) -> None:
    (tmp_path / "echo").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "echo").chmod(0o755)
    script = tmp_path / "only_barflow.sh"
    script.write_text((HOST / "only_barflow.sh").read_text().replace("/usr/local/bin/barflow", str(tmp_path / "echo")))
    environment = {"SSH_ORIGINAL_COMMAND": asked, "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    if ran is None:
        assert (done.returncode, done.stdout) == (2, "")
        assert "only" in done.stderr
    else:
        assert done.stdout.splitlines()[: len(ran)] == ran


def test_a_command_runs_with_the_deployments_settings(booted: Booted, tmp_path: Path) -> None:
    machine, _ = booted
    root = tmp_path / "root"
    (root / "run/barflow").mkdir(parents=True)
    (root / "run/barflow/barflow.env").write_text("BARFLOW_SLACK_CHANNEL='#bars $HOME'\n")
    (root / "opt/barflow/venv/bin").mkdir(parents=True)
    program = root / "opt/barflow/venv/bin/barflow"
    program.write_text('#!/bin/bash\nprintf "%s|" "$BARFLOW_SLACK_CHANNEL" "$@"\n')
    program.chmod(0o755)
    command = [machine.root / "usr/local/bin/barflow", "ingest", "a b"]
    done = subprocess.run(command, env={"BARFLOW_ROOT": str(root), "PATH": os.environ["PATH"]}, capture_output=True)
    assert done.stdout.decode() == "#bars $HOME|ingest|a b|", done.stderr


def test_logs_go_to_the_hosts_group(booted: Booted) -> None:
    machine, calls = booted
    agent = machine.root / "opt/aws/amazon-cloudwatch-agent/etc/barflow.json"
    files = json.loads(agent.read_text())["logs"]["logs_collected"]["files"]["collect_list"]
    assert {item["log_group_name"] for item in files} == {"barflow-dev-host"}
    assert {item["file_path"] for item in files} == {"/var/log/cloud-init-output.log", "/var/log/messages"}
    assert any(call.startswith("dnf install") and " rsyslog " in call for call in calls), "it writes /var/log/messages"
