"""Setup of the host by bootstrap.sh: what it installs, and that a second run changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from fake_host import HOST, FakeHost

from config import versions

SCRIPTS = sorted(HOST.glob("*.sh"))
# The calls of a run without changes: queries, and a command that systemd ignores for enabled units.
QUERIES = ("mountpoint -q", "swapon --show", "rpm -q", "getent passwd", "stat -c", "systemctl enable --now")
Booted = tuple[FakeHost, list[str]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_accepts_the_scripts(script: Path) -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(".venv/bin/shellcheck"))
    found = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert os.access(script, os.X_OK)


def test_without_its_environment_the_setup_fails() -> None:
    found = subprocess.run(["bash", HOST / "bootstrap.sh"], capture_output=True, text=True, env={}, check=False)
    assert found.returncode != 0
    assert "BARFLOW_ENV" in found.stderr


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    assert [call for call in host.boot() if not call.startswith(QUERIES)]
    before = host.files()
    calls = host.boot()
    assert [call for call in calls if not call.startswith((*QUERIES, "python -I"))] == []
    assert host.files() == before


def test_a_changed_unit_restarts_the_services_once(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.boot()
    unit = host.release / "orchestration/host/units/airflow-scheduler.service"
    unit.write_text(unit.read_text().replace("RestartSec=10", "RestartSec=11"))
    changes = [call for call in host.boot() if not call.startswith((*QUERIES, "python -I"))]
    assert changes == ["systemctl daemon-reload", "systemctl restart barflow-settings.service"]
    assert "RestartSec=11" in host.text("/etc/systemd/system/airflow-scheduler.service")


def test_an_interrupted_installation_is_repeated(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.boot()
    (marker,) = host.root.glob("opt/barflow/venvs/*/.complete")
    marker.unlink()
    partial = marker.with_name("partial")
    partial.touch()
    assert any(call.startswith("uv pip install") for call in host.boot())
    assert marker.exists()
    assert not partial.exists()


def test_a_changed_lock_gets_a_new_environment_and_the_old_one_stays(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.boot()
    old = (host.root / "opt/barflow/venv").readlink()
    lock = host.release / "orchestration/host/requirements.txt"
    lock.write_text(lock.read_text() + "\n# another\n")
    host.boot()
    new = (host.root / "opt/barflow/venv").readlink()
    assert new != old
    assert old.is_dir()


def test_the_locked_uv_installs_the_packages_with_their_hashes(booted: Booted) -> None:
    host, calls = booted
    (pip,) = [call for call in calls if "-m pip install" in call]
    (uv,) = [call for call in calls if call.startswith("uv pip install")]
    assert "--require-hashes" in pip
    assert "--require-hashes" in uv
    assert uv.endswith("/orchestration/host/requirements.txt")
    (lines,) = [path.read_text().splitlines() for path in host.root.glob("opt/barflow/venvs/*/uv.txt")]
    assert re.fullmatch(r"uv==[\d.]+ \\", lines[0])
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])
    assert not lines[-1].endswith("\\")


def test_the_environment_imports_the_released_library(booted: Booted) -> None:
    host, _ = booted
    (path,) = host.root.glob("opt/barflow/venvs/*/lib/python3.11/site-packages/barflow.pth")
    assert Path(path.read_text().strip()) == host.release
    for needed in (
        *("barflow/cli/main.py", "barflow/market/sessions_xnys.csv", "barflow/alerts/alerts.toml", "dashboard/app.py"),
        *("dashboard/static/index.html", "sql"),
        "dashboard/static/vendor/lightweight-charts.standalone.production.mjs",
    ):
        assert (host.release / needed).exists(), needed


def test_barflow_on_the_host_has_the_pages_command_and_no_command_of_an_unreleased_room(booted: Booted) -> None:
    host, _ = booted
    (installed,) = host.root.glob("opt/barflow/venvs/*/lib/python3.11/site-packages/barflow.dist-info")
    entries = PathDistribution(installed).entry_points.select(group="barflow.commands")
    assert set(entries) < set(distribution("barflow").entry_points.select(group="barflow.commands"))
    modules = {entry.name: host.release / f"{entry.module.replace('.', '/')}.py" for entry in entries}
    assert set(modules) == {"dashboard"}, "the unit of the page runs it"
    assert modules["dashboard"].exists()


def test_the_hosts_python_has_the_version_of_the_locks(booted: Booted) -> None:
    _, calls = booted
    (dnf,) = [call for call in calls if call.startswith("dnf ")]
    assert f" python{versions.SPARK_PYTHON} " in dnf


def test_every_unit_is_installed_hardened_and_started(booted: Booted) -> None:
    host, calls = booted
    units = {path.name for path in (HOST / "units").iterdir()}
    installed = host.root / "etc/systemd/system"
    assert {path.name for path in installed.iterdir() if path.is_file()} == units
    for prefix in ("airflow", "barflow"):
        assert (installed / f"{prefix}-.service.d/hardened.conf").read_text() == (HOST / "hardened.conf").read_text()
    (started,) = [call.split()[4:] for call in calls if call.startswith("systemctl enable --now --quiet airflow-")]
    assert set(started) == units - {"barflow-health.service", "barflow-replaced.service"}, "their timers start them"


def test_ssh_accepts_one_user_from_the_host_itself(booted: Booted) -> None:
    host, _ = booted
    config = host.text("/etc/ssh/sshd_config.d/10-barflow.conf").splitlines()
    assert {"ListenAddress 127.0.0.1", "AllowUsers barflow@127.0.0.1", "PasswordAuthentication no"} <= set(config)


def test_airflow_knows_the_hosts_keys(booted: Booted) -> None:
    host, _ = booted
    kind, key, _ = host.text("/etc/ssh/ssh_host_ed25519_key.pub").split(" ")
    assert host.text("/var/lib/barflow/airflow/.ssh/known_hosts").startswith(f"127.0.0.1 {kind} {key}")


@pytest.mark.parametrize(
    ("command", "ran"),
    [
        ("barflow ingest --json", ["ingest", "--json"]),
        ("barflow backfill --symbols AAPL,BRK.B --start 2025-01-02 --end 2025-01-03", ["backfill", "--symbols"]),
        ("barflow backfill $(id) ; id", ["backfill", "$(id)", ";", "id"]),
        ("barflow ingest *", ["ingest", "*"]),
        ("barflow actions refresh --due --json", ["actions", "refresh", "--due", "--json"]),
        *[(refused, None) for refused in ("barflow sql x", "bash", "", "barflow", "/usr/local/bin/barflow ingest")],
        *[(refused, None) for refused in ("barflow actions import x", "barflow actions refreshed", "barflow ingested")],
    ],
)
def test_the_ssh_key_may_only_run_what_the_dags_run(tmp_path: Path, command: str, ran: list[str] | None) -> None:
    (tmp_path / "echo").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "echo").chmod(0o755)
    script = tmp_path / "only_barflow.sh"
    script.write_text((HOST / "only_barflow.sh").read_text().replace("/usr/local/bin/barflow", str(tmp_path / "echo")))
    environment = {"SSH_ORIGINAL_COMMAND": command, "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    if ran is None:
        assert (done.returncode, done.stdout) == (2, "")
        assert "only" in done.stderr
    else:
        assert done.stdout.splitlines()[: len(ran)] == ran


def test_a_command_runs_with_the_deployments_settings(booted: Booted, tmp_path: Path) -> None:
    host, _ = booted
    root = tmp_path / "root"
    (root / "run/barflow").mkdir(parents=True)
    (root / "run/barflow/barflow.env").write_text("BARFLOW_SLACK_CHANNEL='#bars $HOME'\n")
    (root / "opt/barflow/venv/bin").mkdir(parents=True)
    program = root / "opt/barflow/venv/bin/barflow"
    program.write_text('#!/bin/bash\nprintf "%s|" "$BARFLOW_SLACK_CHANNEL" "$@"\n')
    program.chmod(0o755)
    command = [host.root / "usr/local/bin/barflow", "ingest", "a b"]
    done = subprocess.run(command, env={"BARFLOW_ROOT": str(root), "PATH": os.environ["PATH"]}, capture_output=True)
    assert done.stdout.decode() == "#bars $HOME|ingest|a b|", done.stderr


def test_logs_go_to_the_hosts_log_group(booted: Booted) -> None:
    host, calls = booted
    agent = host.root / "opt/aws/amazon-cloudwatch-agent/etc/barflow.json"
    files = json.loads(agent.read_text())["logs"]["logs_collected"]["files"]["collect_list"]
    assert {item["log_group_name"] for item in files} == {"barflow-dev-host"}
    assert {item["file_path"] for item in files} == {"/var/log/cloud-init-output.log", "/var/log/messages"}
    assert any(call.startswith("dnf install") and " rsyslog " in call for call in calls), "it writes /var/log/messages"
