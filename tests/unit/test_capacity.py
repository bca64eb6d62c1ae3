"""A large backfill is compared with the limits of its environment before it spends a credit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from contracts import contract_of
from typer.testing import CliRunner

from barflow.cli.main import app
from barflow.operations import deployment
from barflow.pipeline.capacity import Demand, Limits, demand, free_gb, rate_tables, too_small, vcpus
from config.cost import backfill_limits
from config.environments import ENVIRONMENTS, environment
from tools import capacity_page

LIMITS = Limits(**backfill_limits(environment("prod")), mongodb_gb=1000)
BARS = 487_650_000
NEW_FIELDS = {"worker_type": "glue", "max_workers": "glue", "timeout_minutes": "glue", "max_storage_gb": "warehouse"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_deployment_has_the_limits_of_its_environment(name: str) -> None:
    assert Limits.of(contract_of(name)) == Limits(**backfill_limits(environment(name)))


def test_a_contract_of_an_earlier_release_has_the_default_limits() -> None:
    made = contract_of("staging").model_dump()
    for name, section in NEW_FIELDS.items():
        del made[section][name]
    assert Limits.of(type(contract_of("staging")).model_validate(made)) == Limits.of(contract_of("staging"))


@pytest.mark.parametrize(
    ("limit", "setting", "advice"),
    [
        ({"step_timeout_minutes": 5}, "emr.step_timeout_minutes is 5", r"Set it to (\d+), then deploy"),
        ({"glue_timeout_minutes": 5}, "glue.timeout_minutes is 5", r"Set it to (\d+), then deploy"),
        ({"warehouse_gb": 20}, "database.max_storage_gb is 20", r"Set it to (\d+), then deploy"),
        ({"mongodb_gb": 1}, "MongoDB has 1 GB free", r"Give it (\d+) GB more"),
    ],
)
def test_the_limit_that_is_too_small_is_named_and_its_advice_suffices(
    limit: dict[str, Any], setting: str, advice: str
) -> None:
    wide = replace(LIMITS, step_timeout_minutes=1440, glue_timeout_minutes=1440, warehouse_gb=1000)
    needed = demand(BARS, wide)
    assert list(too_small(needed, wide)) == []
    (problem,) = too_small(needed, replace(wide, **limit))
    assert problem.startswith(f"{setting}: ")
    matched = re.search(advice, problem)
    assert matched
    (name,) = limit
    fixed = int(matched[1]) + (limit[name] if name == "mongodb_gb" else 0)
    assert list(too_small(needed, replace(wide, **{name: fixed}))) == []


def test_more_than_a_day_is_to_be_cut_and_unknown_space_is_not_compared() -> None:
    small = replace(LIMITS, glue_timeout_minutes=1440, mongodb_gb=None)
    found = list(too_small(demand(100 * BARS, small), small))
    assert any("Set it to 1440, the longest, and backfill fewer sessions at once" in problem for problem in found)
    assert not any("MongoDB" in problem for problem in found)


def test_hours_follow_the_workers_and_the_load_does_not() -> None:
    one, two = (demand(BARS, replace(LIMITS, emr_workers=count, glue_workers=1 + count)) for count in (1, 2))
    assert one.process_hours == pytest.approx(2 * two.process_hours)
    assert one.aggregate_hours == pytest.approx(2 * two.aggregate_hours)
    assert one.load_hours == two.load_hours
    assert one.warehouse_gb == two.warehouse_gb == pytest.approx(116, rel=0.01)


@pytest.mark.parametrize(
    ("instance", "count"), [("m7g.medium", 1), ("c7g.large", 2), ("m6g.xlarge", 4), ("m6g.12xlarge", 48)]
)
def test_a_size_has_its_vcpus(instance: str, count: int) -> None:
    assert vcpus(instance) == count


def test_a_server_without_the_size_of_its_disk_has_no_known_space() -> None:
    assert free_gb({"ok": 1.0}) is None
    assert free_gb({"fsTotalSize": 30e9, "fsUsedSize": 10e9}) == 20


def test_a_plan_in_an_environment_exits_1_if_a_limit_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"fsTotalSize": 2e9, "fsUsedSize": 1e9}
    stores = SimpleNamespace(database=SimpleNamespace(command=lambda name: answer))
    monkeypatch.setenv("BARFLOW_ENV", "dev")
    monkeypatch.setattr(deployment, "open_stores", lambda env: (stores, contract_of(env)))
    names = ",".join(f"S{number}" for number in range(400))
    command = ["backfill", "--plan", "--symbols", names, "--end", "2025-12-31", "--start"]
    large = CliRunner().invoke(app, [*command, "2021-01-04", "--json"])
    small = CliRunner().invoke(app, [*command, "2025-12-31"])
    assert (large.exit_code, small.exit_code) == (1, 0), (large.output, small.output)
    found = json.loads(large.stdout)
    assert [problem.split(":")[0] for problem in found["too_small"]] == ["MongoDB has 1 GB free"]
    assert found["takes"].keys() == Demand.to_json(demand(1, LIMITS)).keys()
    assert "after that, process takes about 1 minute (" in small.stdout


def test_every_rate_has_a_source_and_the_page_has_the_figures_of_the_rates() -> None:
    data = rate_tables()
    assert all(rate["source"] and rate["value"] > 0 for rate in data["rates"].values())
    assert data["plans"]["source"]
    assert data["memory"]["source"]
    text = capacity_page.PAGE.read_text()
    assert capacity_page.page(text) == text, "run `python -m tools.capacity_page`"
