"""`barflow doctor`: each check passes where all is well and names the fault where it is not. No secret is shown."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import psycopg
import pytest
from moto import mock_aws
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer import Exit

from barflow.cli import doctor as command
from barflow.errors import BadInputError
from barflow.market.sessions import utc_now
from barflow.operations.checks import Check
from barflow.operations.doctor import machine, stores, vendor
from barflow.operations.doctor.run import run
from barflow.settings import load_settings
from emulators.twelvedata.server import TwelveDataEmulator
from local.starting import free_port
from local.synthetic import SyntheticBars

KEY = "doctors-secret-key"
SECRET = "hunter2"


def checks(state: Path, *, call_vendor: bool = False, embedded: bool = True) -> dict[str, Check]:
    return {item.name: item for item in run(state, utc_now, vendor=call_vendor, embedded=embedded)}


@pytest.fixture
def api() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(SyntheticBars(), api_key=KEY, credits_per_minute=8, credits_per_day=800) as server:
        yield server


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="lake")
        yield client


def test_a_machine_without_settings_passes_and_says_what_the_demo_uses(tmp_path: Path) -> None:
    found = checks(tmp_path / "state", call_vendor=True)
    assert [item for item in found.values() if not item.ok] == []
    left_out = {name: item.found for name, item in found.items() if not item.checked}
    assert set(left_out) == {"MongoDB", "PostgreSQL", "lake", "Twelve Data key"}
    assert all(text.startswith("not checked: ") for text in left_out.values())
    assert f"commands use an embedded MongoDB in {tmp_path / 'state'}" in left_out["MongoDB"]
    assert not (tmp_path / "state").exists(), "the doctor makes nothing"


def test_without_embedded_services_an_unset_store_is_a_fault(tmp_path: Path) -> None:
    found = checks(tmp_path, embedded=False)
    assert not found["PostgreSQL"].ok
    assert found["PostgreSQL"].fix.startswith("set BARFLOW_WAREHOUSE_DSN")


def test_services_that_are_set_up_pass(
    tmp_path: Path,
    mongodb_uri: str,
    warehouse_dsn: str,
    api: TwelveDataEmulator,
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_WAREHOUSE_DSN": make_conninfo(warehouse_dsn, password=SECRET),
        "BARFLOW_LAKE_URI": "s3://lake/prefix",
        "BARFLOW_TWELVEDATA_URL": api.url,
        "TWELVEDATA_API_KEY": KEY,
        "BARFLOW_MONGO_URI": "mistyped",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    found = [*run(tmp_path, utc_now, vendor=True, embedded=True)]
    assert [item for item in found if not item.ok or not item.checked] == []
    shown = {item.name: item.found for item in found}
    assert shown["MongoDB"].endswith("database barflow, reads and writes")
    assert shown["PostgreSQL"].startswith("version 18.")
    assert shown["lake"] == "s3://lake/prefix, reads and writes"
    assert bucket.list_objects_v2(Bucket="lake")["KeyCount"] == 0
    assert shown["credits"] == "8 a minute, 799 of 800 left today"
    assert Check("settings", True, "BARFLOW_MONGO_URI is not a setting", "did you mean BARFLOW_MONGODB_URI?") in found
    assert [call.path for call in api.requests] == ["/api_usage"]
    everything = " ".join(f"{item.found} {item.fix}" for item in found)
    assert not [secret for secret in (KEY, SECRET) if secret in everything]


def test_the_command_prints_a_line_per_check_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Check("fine", True, "all there"),
        Check("later", True, "all there", "do it"),
        Check("left out", True, "not checked: no", checked=False),
        Check("wrong", False, "nothing [there]", "repair it"),
    ]
    monkeypatch.setattr("barflow.operations.doctor.run.run", lambda *_, **__: iter(found))
    with pytest.raises(Exit) as ended:
        command.doctor(state=tmp_path)
    shown, said = capsys.readouterr()
    assert (ended.value.exit_code, said) == (1, "1 of 4 checks failed\n")
    assert [line[:1] for line in shown.splitlines()] == ["✓", "✓", " ", "–", "✗", " "]
    assert "note: do it" in shown
    assert "nothing [there]\n  fix: repair it" in shown
    with pytest.raises(Exit):
        command.doctor(state=tmp_path, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["checks"][3] == {"name": "wrong", "ok": False, "found": "nothing [there]", "fix": "repair it"}


class TestMachine:
    def test_python(self) -> None:
        assert not machine.check_python((3, 10)).ok
        assert machine.check_python((3, 13)).fix == "use Python 3.11, on which barflow is tested"

    def test_java(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "bin" / "java"
        monkeypatch.setattr(machine, "spark_environment", lambda: {"JAVA_HOME": str(tmp_path)})
        assert "does not start (FileNotFoundError)" in machine.check_java().found
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'openjdk version \"24.0.1\" 2025-04-15' >&2\n")
        program.chmod(0o755)
        refused = machine.check_java()
        assert (refused.ok, refused.found, refused.fix[:15]) == (False, f"24 at {program}", "install Java 17")
        monkeypatch.setattr(machine, "find_spec", lambda name: None)
        assert not machine.check_java().checked

    def test_encoding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="cp1252"))
        note = machine.check_encoding()
        assert "cp1252" in note.found
        assert "PYTHONIOENCODING=utf-8" in note.fix

    def test_temporary_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
        wrong = machine.check_temporary_folder()
        assert (wrong.ok, wrong.found.split(",")[0]) == (False, f"{tmp_path / 'absent'} cannot be written")

    def test_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000))
        full = machine.check_folder("lake", tmp_path)
        assert (full.ok, full.fix) == (False, "free 1 GB, or choose a folder on another disk")

        def refuse(**_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        assert machine.check_folder("lake", tmp_path).found == f"{tmp_path} cannot be written (Permission denied)"

    def test_ports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            port = server.getsockname()[1]
            monkeypatch.setattr(machine, "PORTS", {port: "`barflow dashboard`"})
            (note,) = machine.check_ports()
        assert (note.found, note.fix) == (f"{port} is in use", "pass another --port to `barflow dashboard`")
        monkeypatch.setattr(machine, "LOOPBACK", "192.0.2.1")  # no machine's own address
        (fault,) = machine.check_ports()
        assert not fault.ok

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPARK_HOME", SECRET)
        found = machine.check_environment().found
        assert "SPARK_HOME" in found
        assert SECRET not in found


class TestSettings:
    def test_a_wrong_setting_ends_the_checks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BARFLOW_BATCH_SIZE", "500")
        found = checks(tmp_path)
        assert (found["settings"].ok, "MongoDB" in found) == (False, False)
        assert "BARFLOW_BATCH_SIZE must be" in found["settings"].found

    def test_a_deployment_that_is_not_there(self, tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BARFLOW_ENV", "dev")
        assert "BARFLOW_ENV is dev and this account and region have no" in checks(tmp_path)["deployment"].found

    @pytest.mark.parametrize(
        ("name", "variable"),
        [("alert rules", "BARFLOW_ALERTS_FILE"), ("instruments", "BARFLOW_INSTRUMENTS_FILE")],
    )
    def test_files_that_people_edit(
        self, tmp_path: Path, name: str, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert checks(tmp_path)[name].ok
        monkeypatch.setenv(variable, str(tmp_path / "absent.toml"))
        assert not checks(tmp_path)[name].ok

    def test_a_rule_that_names_a_symbol_of_no_use(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "alerts.toml"
        file.write_text("""[[rule]]\nid = "weak"\nwhen = 'of("SPY").close < 100.0'\n""")
        monkeypatch.setenv("BARFLOW_ALERTS_FILE", str(file))
        monkeypatch.setenv("BARFLOW_SYMBOLS", "AAPL,SPY")
        assert checks(tmp_path)["alert rules"].ok
        monkeypatch.setenv("BARFLOW_SYMBOLS", "AAPL")
        wrong = checks(tmp_path)["alert rules"]
        assert not wrong.ok
        assert wrong.found.startswith("alert rule weak: when: position 1: SPY is not a symbol of this environment")


class TestMongoDB:
    def test_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = f"mongodb://reader:{SECRET}@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
        wrong = stores.check_mongodb(load_settings(mongodb_uri=uri), writes=True)
        assert (wrong.ok, SECRET in wrong.found) == (False, False)
        assert wrong.found.startswith("MongoDB could not be reached: 127.0.0.1:")

    def test_permissions(self, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def user(database: str, *actions: str) -> dict[str, Any]:
            resource = {"db": database, "collection": ""}
            return {
                "authenticatedUsers": [{"user": "reader", "db": "admin"}],
                "authenticatedUserPrivileges": [{"resource": resource, "actions": [*actions]}],
            }

        monkeypatch.setattr(stores, "_authenticated", lambda database: user("barflow", "find", "insert", "update"))
        limited = stores.check_mongodb(load_settings(mongodb_uri=mongodb_uri), writes=True)
        assert not limited.ok
        assert limited.found.endswith("missing permissions: collMod, createCollection, createIndex, remove")
        assert stores.check_mongodb(load_settings(mongodb_uri=mongodb_uri), writes=False).ok
        assert stores.missing_actions(user("other", "find"), "barflow", {"find"}) == ["find"]
        assert stores.missing_actions(user("", "find"), "barflow", {"find"}) == []
        unreported = {**user("barflow"), "authenticatedUserPrivileges": []}
        assert stores.missing_actions(unreported, "barflow", {"find"}) == ["find"]
        roles = {"authenticatedUserRoles": [{"role": "root", "db": "admin"}]}
        assert stores.missing_actions({**unreported, **roles}, "barflow", {"find"}) == []


class TestPostgreSQL:
    def check(self, dsn: str, *, writes: bool = True, **changed: str) -> Check:
        return stores.check_warehouse(load_settings(warehouse_dsn=make_conninfo(dsn, **changed)), writes=writes)

    def test_no_server(self, warehouse_dsn: str) -> None:
        wrong = self.check(warehouse_dsn, host="127.0.0.1", port=str(free_port()), password=SECRET)
        assert (wrong.ok, SECRET in wrong.found) == (False, False)
        assert wrong.found.startswith("the warehouse could not be reached")

    def test_no_tables_yet(self, empty_warehouse_dsn: str) -> None:
        note = self.check(empty_warehouse_dsn)
        assert (note.ok, note.fix) == (True, "run `barflow migrate`")

    def test_read_only(self, warehouse_dsn: str) -> None:
        options = {"options": "-c default_transaction_read_only=on"}
        assert "is read-only" in self.check(warehouse_dsn, **options).found
        assert self.check(warehouse_dsn, writes=False, **options).ok

    def test_permissions(self, warehouse_dsn: str) -> None:
        database = conninfo_to_dict(warehouse_dsn)["dbname"]
        with psycopg.connect(warehouse_dsn, autocommit=True) as owner:
            owner.execute("create role doctor_test login")
            try:
                assert "no permission to create schemas" in self.check(warehouse_dsn, user="doctor_test").found
                owner.execute(f"grant create on database {database} to doctor_test")
                owner.execute("grant usage on schema market, ops to doctor_test")
                owner.execute("grant select, insert on all tables in schema market, ops to doctor_test")
                assert self.check(warehouse_dsn, user="doctor_test", writes=False).ok
                limited = self.check(warehouse_dsn, user="doctor_test")
                assert (limited.ok, limited.found.split("; ")[1]) == (False, "missing permissions: update, delete")
            finally:
                owner.execute("drop owned by doctor_test cascade")
                owner.execute("drop role doctor_test")

    def test_an_old_version(self) -> None:
        old = {"version": "12.4", "major": 12, "user": "u", "missing": ""}
        assert stores.describe_warehouse(old, writes=True).fix == "use PostgreSQL 13 or later"


class TestLake:
    def test_a_folder(self, tmp_path: Path) -> None:
        assert stores.check_lake(load_settings(lake_uri=str(tmp_path / "a" / "b")), writes=True).ok
        assert os.listdir(tmp_path) == []  # noqa: PTH208

    def test_a_bucket_that_is_not_there(self, bucket: Any) -> None:
        wrong = stores.check_lake(load_settings(lake_uri="s3://absent/lake"), writes=True)
        assert (wrong.ok, wrong.found) == (False, "s3://absent/lake cannot be used (NoSuchBucket)")


class TestTwelveData:
    def check(self, api: TwelveDataEmulator, key: str = KEY, **changed: Any) -> dict[str, Check]:
        settings = load_settings(twelvedata_url=api.url, twelvedata_api_key=key, **changed)
        return {item.name: item for item in vendor.check_vendor(settings, utc_now)}

    def test_a_wrong_key(self, api: TwelveDataEmulator) -> None:
        found = self.check(api, key=f"{SECRET}{SECRET}")
        assert (found["Twelve Data key"].ok, found["clock"].ok) == (False, True)
        assert SECRET not in found["Twelve Data key"].found

    def test_no_answer(self, api: TwelveDataEmulator) -> None:
        settings = load_settings(twelvedata_url=f"http://127.0.0.1:{free_port()}", twelvedata_api_key=KEY)
        (wrong,) = vendor.check_vendor(settings, utc_now)
        assert "gave no answer" in wrong.found

    def test_a_plan_smaller_than_the_settings(self, api: TwelveDataEmulator) -> None:
        wrong = self.check(api, credits_per_minute=55, credits_per_day=None)["credits"]
        assert (wrong.ok, wrong.fix) == (False, "set BARFLOW_CREDITS_PER_MINUTE=8 and BARFLOW_CREDITS_PER_DAY=800")
        note = self.check(api, credits_per_minute=4)["credits"]
        assert (note.ok, note.fix) == (True, "set BARFLOW_CREDITS_PER_MINUTE=8 to use the whole plan")

    def test_no_credits_left_today(self) -> None:
        with TwelveDataEmulator(SyntheticBars(), api_key=KEY, credits_per_minute=8, credits_per_day=1) as api:
            assert not self.check(api, credits_per_day=1)["credits"].ok
            assert "none left today" in self.check(api)["credits"].found

    def test_no_credits_left_in_the_minute(self) -> None:
        clock = lambda: datetime(2025, 7, 2, 20, tzinfo=UTC)  # noqa: E731
        with TwelveDataEmulator(SyntheticBars(), clock=clock, api_key=KEY, credits_per_minute=1) as api:
            self.check(api)
            assert self.check(api)["credits"].fix == "run it again in a minute"

    def test_a_clock_that_is_wrong(self) -> None:
        date = "Wed, 02 Jul 2025 20:00:00 GMT"
        true = datetime(2025, 7, 2, 20, tzinfo=UTC)
        assert vendor.check_clock(date, true + timedelta(seconds=2)).ok
        wrong = vendor.check_clock(date, true - timedelta(minutes=3))
        assert (wrong.ok, wrong.found) == (False, "180 s behind Twelve Data's")
        assert not vendor.check_clock(None, true).checked

    def test_a_malformed_address(self) -> None:
        settings = load_settings(twelvedata_url="ftp://host", twelvedata_api_key=KEY)
        (wrong,) = vendor.check_vendor(settings, utc_now)
        assert not wrong.ok


def test_an_installation_without_the_embedded_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise BadInputError("the embedded services are not in this installation")

    monkeypatch.setattr("barflow.cli.rooms.embedded_stores", absent)
    with pytest.raises(Exit) as ended:
        command.doctor(state=tmp_path, vendor=False)
    assert ended.value.exit_code == 1
    assert "✗ MongoDB" in capsys.readouterr().out
