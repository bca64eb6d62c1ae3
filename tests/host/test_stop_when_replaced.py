"""The old host's scheduler stops when a deployment replaces the host, and starts again after a rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contracts import contract_of
from harness import program

from barflow.contract import RuntimeContract
from barflow.errors import UnavailableError

CHECK: Any = program("orchestration/host/stop_when_replaced.py")


class Host:
    """A host with its own contract, the deployed contract, and the commands that were given to systemd."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own = self.deployed = contract_of("dev")
        self.commands: list[str] = []
        (folder / "contract.json").write_text(self.own.model_dump_json())
        monkeypatch.setenv("BARFLOW_ENV", "dev")
        monkeypatch.setattr("sys.argv", ["stop_when_replaced.py", "--to", str(folder)])
        monkeypatch.setattr(CHECK, "read_contract", lambda env: self.deployed)
        monkeypatch.setattr(CHECK.subprocess, "run", lambda words, check: self.commands.append(" ".join(words)))

    def deploy(self, **changes: Any) -> list[str]:
        """Write another contract, check twice, and return what systemd was told."""
        self.deployed, self.commands[:] = contract_of("dev", **changes), []
        assert (CHECK.main(), CHECK.main()) == (0, 0)
        return self.commands


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_host_with_the_deployed_contract_stays_as_it_is(host: Host) -> None:
    assert host.deploy() == []


@pytest.mark.parametrize(
    "changes", [{"storage": {"code_uri": "s3://code/releases/other/"}}, {"emr": {"core_count": 9}}]
)
def test_the_scheduler_stops_once_and_starts_once_after_a_rollback(host: Host, changes: dict[str, Any]) -> None:
    assert host.deploy(**changes) == ["systemctl stop airflow-scheduler.service"]
    assert host.deploy() == ["systemctl start airflow-scheduler.service"]
    assert host.deploy() == []


def test_a_contract_that_cannot_be_read_stops_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreadable(env: str) -> RuntimeContract:
        raise UnavailableError("the contract of dev cannot be read")

    monkeypatch.setattr(CHECK, "read_contract", unreadable)
    assert CHECK.main() == 1
    assert host.commands == []
    assert capsys.readouterr().err == "error: the contract of dev cannot be read\n"
