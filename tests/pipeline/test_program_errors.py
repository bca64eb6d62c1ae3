"""Program errors: one line that names the cause and the next command, the exit code of its kind, and no secret."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import AGGREGATE, PROCESS, Pipeline, random_session

SECRET = "s3cr3t"
CLOSED_PORT = "127.0.0.1:1"


@pytest.mark.parametrize("path", [PROCESS, AGGREGATE])
@pytest.mark.parametrize(
    ("settings", "arguments", "code", "message"),
    [
        ({"BARFLOW_LAKE_URI": ""}, (), 2, "BARFLOW_LAKE_URI is not set. Export it, or pass"),
        ({"BARFLOW_LAKE_URI": "ftp://host/lake"}, (), 2, "must be a folder or s3://bucket/prefix"),
        ({}, ("--lake", "nonsense://x"), 2, "must be a folder or s3://bucket/prefix"),
        ({"BARFLOW_LEASE_SECONDS": "soon"}, (), 2, "settings are wrong: BARFLOW_LEASE_SECONDS"),
        ({}, ("--symbols", " , "), 2, "no symbols given: name at least one"),
        ({}, ("--symbols", "AA PL"), 2, "'AA PL' is not a symbol"),
        ({"BARFLOW_MONGODB_URI": "", "BARFLOW_WAREHOUSE_DSN": ""}, (), 2, "is not set. Export it"),
    ],
)
def test_a_wrong_setting_or_argument_is_named(
    stores: Pipeline, path: str, settings: dict[str, str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    stores.settings |= settings
    ran = stores.run(path, *arguments)
    assert (ran.code, ran.result, len(ran.stderr.splitlines())) == (code, {}, 1)
    assert message in ran.error


@pytest.mark.parametrize("arguments", [("--full",), ()])
def test_a_symbol_without_staged_bars_is_named(stores: Pipeline, arguments: tuple[str, ...]) -> None:
    stores.stage([random_session("AAPL", "2025-07-02")])
    ran = stores.run(PROCESS, "--symbols", "NOPE,AAPL", *arguments)
    assert (ran.code, "no bars of NOPE are staged" in ran.error) == (2, True)


def test_a_lake_that_cannot_be_written_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("not a folder")
    pipeline.lake_uri = str(obstacle / "lake")
    pipeline.stage([random_session("AAPL", "2025-07-02")])
    ran = pipeline.run(PROCESS)
    assert ran.code == 1
    assert f"could not write {obstacle}/lake/_staged" in ran.error
    assert "Every file that readers see is complete. Free disk space, or fix the permissions" in ran.error
    assert pipeline.ledger.last("process")["error"] == ran.error  # type: ignore[index]


def test_a_missing_schema_names_the_command_that_creates_it(stores: Pipeline, empty_warehouse_dsn: str) -> None:
    stores.warehouse_dsn = empty_warehouse_dsn
    ran = stores.run(AGGREGATE)
    assert (ran.code, ran.error.endswith('"ops.load_run" does not exist. Run `barflow migrate` first.')) == (1, True)


MALFORMED = [
    f"postgresql://me:{SECRET}%zz@host/db",
    f"postgresql://me:x@{SECRET}@127.0.0.1/db",
    f"postgresql://me:x {SECRET}@127.0.0.1/db",
    f"postgresql://127.0.0.1:{SECRET}/x@host/db",
    f"postgresql://me:{SECRET}@[::1/db",
    f"mysql://me:{SECRET}@host/db",
    f"host=127.0.0.1 password='{SECRET}",
    f"{SECRET}",
]


@pytest.mark.parametrize("dsn", MALFORMED)
def test_a_malformed_dsn_is_rejected_and_not_shown(stores: Pipeline, dsn: str) -> None:
    stores.warehouse_dsn = dsn
    ran = stores.run(AGGREGATE)
    assert (ran.code, SECRET in ran.stderr) == (2, False)
    assert ran.error.startswith("BARFLOW_WAREHOUSE_DSN is not a PostgreSQL DSN: it looks like postgresql://USER")


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://me:{SECRET}",
        f"mongodb://me:x/{SECRET}@host/",
        f"mongodb://me:x@{SECRET}@host/",
        f"mongodb://me:{SECRET}@host:port/",
        f"http://me:{SECRET}@host/",
        f"{SECRET}",
    ],
)
def test_a_malformed_mongodb_uri_is_rejected_and_not_shown(stores: Pipeline, uri: str) -> None:
    stores.mongodb_uri = uri
    ran = stores.run(PROCESS)
    assert (ran.code, SECRET in ran.stderr) == (2, False)
    assert ran.error.startswith("BARFLOW_MONGODB_URI is not a MongoDB URI")


@pytest.mark.parametrize(
    ("path", "setting", "address", "name"),
    [
        (PROCESS, "mongodb_uri", f"mongodb://me:{SECRET}@{CLOSED_PORT}/", "MongoDB could not be reached"),
        (
            AGGREGATE,
            "warehouse_dsn",
            f"postgresql://me:{SECRET}@{CLOSED_PORT}/db",
            "the warehouse could not be reached",
        ),
        (AGGREGATE, "warehouse_dsn", f"postgresql://me:{SECRET}@no.such.host/db", "the warehouse could not be reached"),
    ],
)
def test_an_unreachable_server_is_named_without_its_password(
    stores: Pipeline, path: str, setting: str, address: str, name: str
) -> None:
    setattr(stores, setting, address)
    ran = stores.run(path)
    assert (ran.code, SECRET in ran.stderr, ran.error.startswith(name)) == (1, False, True)
    assert f"Check BARFLOW_{setting.upper()} and that the server answers, then run the same command again." in ran.error


def test_a_password_is_in_no_output_no_ledger_and_no_process_list(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the pipeline three times: with an error in a task, with one in the transaction, and without an error."""
    import psutil

    from barflow.warehouse import load

    pipeline.warehouse_dsn = pipeline.warehouse_dsn.replace("postgres@", f"postgres:{SECRET}@")
    pipeline.stage([random_session("AAPL", "2025-07-02")])
    pipeline.process()
    outputs = []
    with psycopg.connect(pipeline.warehouse_dsn, autocommit=True) as server:
        for broken in ("market.bar_1h", "market.daily_metrics"):
            server.execute(f"alter table {broken} rename to renamed")
            outputs.append(pipeline.run(AGGREGATE).stderr)
            server.execute(f"alter table market.renamed rename to {broken.split('.')[1]}")
    command_lines: list[str] = []
    commit = load.Load.commit

    def commit_and_list(self: load.Load, *arguments: Any) -> load.Loaded:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # one that ended meanwhile
                command_lines.append(" ".join(process.cmdline()))
        return commit(self, *arguments)

    monkeypatch.setattr(load.Load, "commit", commit_and_list)
    done = pipeline.run(AGGREGATE)
    assert done.code == 0
    assert len(command_lines) > 3
    assert any("java" in line for line in command_lines)
    for text in (*outputs, done.stderr, str(done.result), *command_lines, str(pipeline.rows("ops.load_run"))):
        assert SECRET not in text
    assert SECRET not in str([*pipeline.database["ledger"].find(), *pipeline.database["leases"].find()])


def test_a_dsn_as_an_argument_is_rejected_and_not_shown(stores: Pipeline) -> None:
    """Arguments are visible in the process list and in the logs of EMR and Glue."""
    ran = stores.run(AGGREGATE, "--warehouse", f"postgresql://me:{SECRET}@host/db")
    assert (ran.code, SECRET in ran.stderr) == (2, False)
    assert "a secret was given as an argument: give a reference" in ran.error
