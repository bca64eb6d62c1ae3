"""Lineage: a tick, process and aggregate are one connected graph of OpenLineage events, and its faults stop no run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness import AGGREGATE, PROCESS, Pipeline, succeeded
from lineage_backend import Backend, backend, facet, name_of
from openlineage.client import event_v2, facet_v2

from barflow.errors import BadInputError
from barflow.market.bars import FIELDS, sql_columns
from barflow.pipeline import lineage, lineage_warehouse
from barflow.pipeline.ingest import run as tick
from barflow.pipeline.ingest_report import IngestReport
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

EVENING = datetime(2025, 7, 3, 21, tzinfo=UTC)
SYMBOLS = ("AAPL", "MSFT")
ROOT = "barflow-local/process_bars/018f6f5c-0000-7000-8000-000000000000"
PARENT = f"barflow-local/process_bars.bars_to_parquet/018f6f5c-0000-7000-8000-000000000001,{ROOT}"


@pytest.fixture
def collected() -> Iterator[Backend]:
    with backend() as server:
        yield server


def ticked(pipeline: Pipeline, lines: list[str] | None = None) -> IngestReport:
    """Run a tick of the pipeline's settings against an emulator of the API."""
    with TwelveDataEmulator(SyntheticBars(seed=7), clock=lambda: EVENING) as api, pipeline.in_environment():
        vendor = {"twelvedata_url": api.url, "twelvedata_api_key": "emulator-key", "actions_source": "none"}
        limits = {"credits_per_minute": 10_000, "credits_per_day": None, "batch_size": 50, "history_sessions": 2}
        stores = Stores(load_settings(**vendor, **limits), clock=lambda: EVENING, lineage_parent=PARENT)
        return tick(stores, SYMBOLS, (lines if lines is not None else []).append)


def check_form(event: dict[str, Any]) -> None:
    """Check an event with the package's own classes: they reject what OpenLineage's schema does not have."""
    run, job = event["run"], event["job"]
    assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent")
    for item in (run, job, *event["inputs"], *event["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            for name, found in item.get(kind, {}).items():
                assert found["_producer"] == event["producer"]
                assert found["_schemaURL"].startswith("https://openlineage.io/spec/facets/"), name
    event_v2.RunEvent(
        eventTime=event["eventTime"],
        eventType=event_v2.RunState[event["eventType"]],
        producer=event["producer"],
        run=event_v2.Run(run["runId"]),
        job=event_v2.Job(job["namespace"], job["name"]),
        inputs=[event_v2.InputDataset(*name_of(item)) for item in event["inputs"]],
        outputs=[event_v2.OutputDataset(*name_of(item)) for item in event["outputs"]],
    )
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    for item in (item for item in event["outputs"] if "schema" in item.get("facets", {})):
        for column in facet(item, "schema")["fields"]:
            facet_v2.schema_dataset.SchemaDatasetFacetFields(**column)


def rows(event: dict[str, Any]) -> dict[str, int]:
    """Return the rows of the outputs that have statistics, by the last part of their names."""
    return {
        item["name"].replace("/", ".").rsplit(".", 1)[-1]: facet(item, "outputStatistics")["rowCount"]
        for item in event["outputs"]
        if "outputStatistics" in item.get("outputFacets", {})
    }


def test_a_tick_process_and_aggregate_are_one_connected_graph(pipeline: Pipeline, collected: Backend) -> None:
    pipeline.settings["BARFLOW_OPENLINEAGE_URL"] = collected.url
    report = ticked(pipeline)
    processed = pipeline.process("--lineage-parent", PARENT)
    loaded = pipeline.aggregate("--lineage-parent", PARENT)
    for event in collected.events:
        check_form(event)
    runs = {"ingest": report.run_id, "process": processed["run_id"], "aggregate": loaded["run_id"]}
    produced: set[tuple[str, str]] = set()
    for job, run_id in runs.items():
        start, end = collected.of(job)
        assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
        assert start["job"]["namespace"] == "barflow-local"
        assert (
            start["run"]["runId"]
            == end["run"]["runId"]
            == str(uuid.uuid5(uuid.NAMESPACE_URL, f"barflow-local/{job}/{run_id}"))
        )
        (tag,) = end["run"]["facets"]["tags"]["tags"]
        assert (tag["key"], tag["value"]) == ("run_id", run_id)
        parent = end["run"]["facets"]["parent"]
        assert "/".join((parent["job"]["namespace"], parent["job"]["name"], parent["run"]["runId"])) in PARENT
        assert parent["root"]["job"]["name"] == "process_bars"
        inputs, outputs = ({name_of(item) for item in end[kind]} for kind in ("inputs", "outputs"))
        if job == "ingest":
            assert inputs == {("http://localhost", "time_series")}
        else:
            assert inputs <= produced, "every input is the output of an earlier job"
        produced |= outputs
    assert produced >= {
        ("mongodb://localhost", f"{pipeline.database_name}.bars"),
        ("file", f"{pipeline.lake_uri}/bars_5min"),
        ("file", f"{pipeline.lake_uri}/corporate_actions"),
    }
    ingest, process, aggregate = (collected.of(job)[-1] for job in runs)
    total = report.total
    assert facet(ingest["inputs"][0], "inputStatistics") == {"rowCount": total.received}
    assert rows(ingest) == {
        "bars": total.new + total.revised, "bar_versions": total.revised, "rejected_bars": total.rejected
    }  # fmt: skip
    assert total.new == processed["rows"] > 0
    assert rows(process) == {"bars_5min": processed["rows"], "bars_5min_history": 0, "corporate_actions": 0}
    assert facet(process["outputs"][0], "outputStatistics")["fileCount"] == processed["partitions"]
    assert rows(aggregate) == {**dict.fromkeys(lineage_warehouse.LOADED, 0), **loaded["rows"]}
    engines = [event["run"]["facets"]["processing_engine"]["name"] for event in (process, aggregate)]
    assert engines == ["spark", "spark"]
    # One definition of the columns: the Bar's, and the tables' own.
    lake = {item["name"]: item["type"] for item in facet(process["outputs"][0], "schema")["fields"]}
    assert [*lake] == ["symbol", *(item.name for item in FIELDS)]
    table = next(item for item in aggregate["outputs"] if item["name"].endswith("market.bar_30min"))
    columns = {item["name"]: item["type"] for item in facet(table, "schema")["fields"]}
    assert sql_columns().items() <= columns.items()
    # A run without changes says so.
    pipeline.process()
    assert set(rows(collected.of("process")[-1]).values()) == {0}


def test_a_failed_run_sends_its_error_in_one_line_without_secrets(pipeline: Pipeline, collected: Backend) -> None:
    pipeline.settings |= {
        "BARFLOW_OPENLINEAGE_URL": collected.url,
        "BARFLOW_OPENLINEAGE_API_KEY": "lineage-key",
        "BARFLOW_WAREHOUSE_DSN": "postgresql://loader:hunter2@127.0.0.1:1/barflow",
    }
    assert pipeline.run(AGGREGATE).code == 1
    start, end = collected.of("aggregate")
    assert (start["eventType"], end["eventType"]) == ("START", "FAIL")
    message = end["run"]["facets"]["errorMessage"]["message"]
    assert message.startswith("the warehouse could not be reached")
    assert "\n" not in message
    assert "hunter2" not in json.dumps(collected.events)
    assert {name_of(item)[0] for item in end["outputs"]} == {"postgres://localhost"}, "named without the database"
    assert collected.keys == ["Bearer lineage-key"] * 2
    # A tick that no symbol answered raises nothing, and has failed.
    pipeline.settings["BARFLOW_SYMBOLS"] = "NONE"
    with (
        pipeline.in_environment(),
        lineage.reported(lineage.Run(lineage_warehouse.AGGREGATE, load_settings(), "x"), print) as done,
    ):
        done(IngestReport("x", errors={"NONE": type("Refused", (), {"message": "unknown symbol"})()}))
    assert collected.of("aggregate")[-1]["run"]["facets"]["errorMessage"]["message"] == "NONE: unknown symbol"


def hanging() -> socket.socket:
    """Return a server that accepts connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    server.listen()
    return server


@pytest.mark.parametrize("fault", ["refused", "hangs", "drips", "error", "unwritable", "key"])
def test_a_backend_that_is_down_or_slow_delays_a_run_by_seconds_and_fails_nothing(
    stores: Pipeline, tmp_path: Path, fault: str
) -> None:
    said = {
        "refused": "Connection refused", "hangs": "timed out", "drips": "no answer within 3 seconds",
        "error": "500 Server Error", "unwritable": "Failed to write", "key": "cannot be read",
    }  # fmt: skip
    with hanging() as silent, backend(500) as broken, backend(slow=1) as slow, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        stores.settings["BARFLOW_OPENLINEAGE_URL"] = {
            "refused": f"http://127.0.0.1:{unused.getsockname()[1]}",
            "hangs": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "drips": slow.url,
            "error": broken.url,
            "unwritable": str(tmp_path),
            "key": broken.url,
        }[fault]
        if fault == "key":
            stores.settings |= {
                "BARFLOW_OPENLINEAGE_API_KEY": "secretsmanager:none", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
                "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_DEFAULT_REGION": "us-east-1",
            }  # fmt: skip
        lines: list[str] = []
        with stores.in_environment():
            run = lineage.Run(lineage_warehouse.AGGREGATE, load_settings(), "x")
            with lineage.reported(run, lines.append):
                ended = time.monotonic()
            waited = time.monotonic() - ended
        requests = broken.requests
    assert waited < lineage.WAIT_SECONDS + 0.5
    (line,) = lines
    assert line.startswith("warning: lineage was not sent to ")
    assert said[fault] in line
    assert "The run itself is not affected" in line
    assert fault != "error" or requests == 2, "there is no retry"


def test_a_whole_run_without_its_backend_ends_as_without_lineage(pipeline: Pipeline) -> None:
    pipeline.settings["BARFLOW_OPENLINEAGE_URL"] = "http://127.0.0.1:1"
    lines: list[str] = []
    assert ticked(pipeline, lines).total.new > 0
    assert len([line for line in lines if "lineage" in line]) == 1
    for program in (PROCESS, AGGREGATE):
        ran = pipeline.run(program)
        succeeded(ran)
        assert ran.stderr.count("lineage was not sent to http://127.0.0.1:1/") == 1


def test_a_file_collects_one_event_a_line(stores: Pipeline, tmp_path: Path) -> None:
    stores.settings["BARFLOW_OPENLINEAGE_URL"] = f"file:{tmp_path}/lineage.jsonl"
    assert stores.run(PROCESS).code == 0
    events = [json.loads(line) for line in (tmp_path / "lineage.jsonl").read_text().splitlines()]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    for event in events:
        check_form(event)


def test_without_the_setting_no_package_of_openlineage_is_imported() -> None:
    code = (
        "import sys, barflow.pipeline.ingest, barflow.pipeline.lineage_warehouse as found\n"
        "from barflow.pipeline.lineage import Run, reported\n"
        "from barflow.settings import load_settings\n"
        "with reported(Run(found.AGGREGATE, load_settings(), 'x'), print): pass\n"
        "print(*(name for name in sys.modules if name.startswith(('openlineage', 'httpx2', 'attr'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    "text", ["", "x", "ns/job/018f", f"{ROOT};rm", f"{ROOT},{ROOT},{ROOT}", f"a b/{ROOT}", f"{ROOT}\n"]
)
def test_a_parent_of_another_form_is_rejected(text: str) -> None:
    with pytest.raises(BadInputError, match="the parent run must be NAMESPACE/JOB/UUID"):
        lineage.parse_parent(text)
    assert lineage.parse_parent(ROOT) == ROOT
    assert lineage.parse_parent(PARENT) == PARENT
