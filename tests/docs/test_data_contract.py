"""datacontract.yaml is what the code makes, and it cannot break its readers without a new major version."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from data_contracts import check, in_environment, written

from barflow.market.bars import glue_columns
from barflow.market.sessions import sessions_between
from config.schedule import ProcessConfig
from tools.data_contract import FRESH_HOURS, PUBLISHED, RELEASED, VERSION, contract, text
from tools.warehouse_tables import read_tables

Contract = dict[str, Any]
Change = Callable[[Contract], object]
# Compares a contract with others, all of a JSON file, and prints what changed and the version that it needs.
COMPARE_ALL = """
import json, sys
from pathlib import Path
from open_data_contract_standard.model import OpenDataContractStandard
sys.path.insert(0, "tools")
import check_contract as checks
contracts = {name: OpenDataContractStandard.model_validate(it) for name, it in json.loads(sys.stdin.read()).items()}
found = {name: checks.changes(contracts["released"], it) for name, it in contracts.items()}
print(json.dumps({name: (changes, checks.needed((1, 4, 2), changes)) for name, changes in found.items()}))
"""


@pytest.fixture(scope="module")
def made(module_warehouse_dsn: str) -> Contract:
    """Return the contract that the code makes."""
    with psycopg.connect(module_warehouse_dsn) as connection:
        return contract(read_tables(connection))


def table(found: Contract, name: str) -> Contract:
    return next(it for it in found["schema"] if it["name"] == name)


def column(found: Contract, name: str) -> Contract:
    of, name = name.split(".")
    return next(it for it in table(found, of)["properties"] if it["name"] == name)


def test_the_committed_contract_is_the_one_that_the_code_makes(made: Contract) -> None:
    assert PUBLISHED.read_text() == text(made), "run .venv/bin/python -m tools.data_contract"


def test_every_column_has_a_meaning_and_every_table_a_key(made: Contract) -> None:
    columns = [(found["name"], it) for found in made["schema"] for it in found["properties"]]
    assert [(of, it["name"]) for of, it in columns if not it["description"].strip()] == []
    assert len(columns) > 80
    keyless = [it["name"] for it in made["schema"] if not any("primaryKey" in at for at in it["properties"])]
    assert keyless == []


def test_the_lake_has_the_columns_of_the_glue_catalog(made: Contract) -> None:
    assert [(it["name"], it["physicalType"]) for it in table(made, "bars_5min")["properties"]] == [
        *glue_columns(),
        ("symbol", "string"),
        ("month", "string"),
    ]


def test_the_newest_bar_stays_fresh_over_the_longest_weekend() -> None:
    """A bar is fresh until the run after the next session: half an hour after it started, at the latest."""
    assert ProcessConfig().schedule == ("45 16 * * MON-FRI",), "the run starts 45 minutes after a full session"
    sessions = sessions_between(date(2020, 1, 1), date(2027, 12, 31))
    longest = max(after.closes - before.closes for before, after in pairwise(sessions))
    assert longest + timedelta(minutes=5 + 45 + 30) < timedelta(hours=FRESH_HOURS) < longest + timedelta(hours=4)


def test_the_contract_names_no_account() -> None:
    assert re.findall(r"\d{12}", PUBLISHED.read_text().replace("10000000000000", "")) == []


def test_a_released_contract_has_the_version_of_its_file() -> None:
    versions = {path.stem: yaml.safe_load(path.read_text())["version"] for path in RELEASED.glob("*.yaml")}
    assert versions
    assert all(name == version for name, version in versions.items())


def test_the_version_is_high_enough_for_what_changed_since_the_release() -> None:
    ended = check("compare")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert f"version {VERSION} may follow" in ended.stderr


CHANGES: dict[str, tuple[str, str, Change]] = {
    "a table is removed": (
        "major", "Removed schema bar_1h", lambda it: it["schema"].remove(table(it, "bar_1h")),
    ),
    "a column is removed": (
        "major", "Removed property vwap",
        lambda it: table(it, "bar_1h")["properties"].remove(column(it, "bar_1h.vwap")),
    ),
    "a type changes": (
        "major", "bars_5min.properties.volume.physicalType from 'bigint' to 'int'",
        lambda it: column(it, "bars_5min.volume").update(physicalType="int"),
    ),
    "a required column may be NULL": (
        "major", "bars_5min.properties.close.required", lambda it: column(it, "bars_5min.close").update(required=False),
    ),
    "a key loses a column": (
        "major", "key constraint at schema.corporate_action.properties.kind",
        lambda it: column(it, "corporate_action.kind").update(primaryKey=False),
    ),
    "a value is no longer allowed": (
        "major", "Removed allowed values at schema.corporate_actions.properties.source.enum.file",
        lambda it: column(it, "corporate_actions.source")["enum"].pop(),
    ),
    "a value is new": (
        "major", "Added allowed values at schema.corporate_actions.properties.kind.enum.merger",
        lambda it: column(it, "corporate_actions.kind")["enum"].append({"value": "merger"}),
    ),
    "a limit is wider": (
        "major", "bars_5min.properties.volume.logicalTypeOptions.minimum",
        lambda it: column(it, "bars_5min.volume")["logicalTypeOptions"].update(minimum=-1),
    ),
    "a rule is gone": (
        "major", "Removed quality rule", lambda it: table(it, "bars_5min")["quality"].pop(),
    ),
    "a rule is another one": (
        "major", "query of quality rule 'month'",
        lambda it: table(it, "bars_5min")["quality"][-1].update(query="select 0 from ${table}"),
    ),
    "bars may be older": (
        "major", "Changed freshness", lambda it: it["slaProperties"][0].update(value=200),
    ),
    "the age of bars is no longer promised": (
        "major", "Removed freshness", lambda it: it["slaProperties"].pop(0),
    ),
    "bars must be newer": (
        "minor", "Changed freshness", lambda it: it["slaProperties"][1].update(value=50),
    ),
    "data arrive less often": (
        "major",
        "slaProperties.frequency.value",
        lambda it: it["slaProperties"][2].update(value=7),
    ),
    "files are in other folders": (
        "major", "bars_5min.properties.month",
        lambda it: column(it, "bars_5min.month").update(partitioned=False),
    ),
    "a column is new": (
        "minor", "Added property trades",
        lambda it: table(it, "bar_1h")["properties"].append(
            {"name": "trades", "logicalType": "integer", "physicalType": "bigint"}
        ),
    ),
    "a table is new": (
        "minor", "Added schema bar_2h",
        lambda it: it["schema"].append({**copy.deepcopy(table(it, "bar_1h")), "name": "bar_2h"}),
    ),
    "a column is never NULL": (
        "minor", "bar_1h.properties.vwap.required", lambda it: column(it, "bar_1h.vwap").update(required=True),
    ),
    "a meaning is clearer": (
        "patch", "bar_1h.properties.vwap.description",
        lambda it: column(it, "bar_1h.vwap").update(description="Clearer"),
    ),
}  # fmt: skip
NEEDED = {"major": [2, 0, 0], "minor": [1, 5, 0], "patch": [1, 4, 3]}


Compared = dict[str, tuple[list[list[str]], list[int]]]


@pytest.fixture(scope="module")
def compared(made: Contract) -> Compared:
    """Return by changed contract what changed, and the version that it needs after 1.4.2."""
    contracts = {"released": made} | {name: copy.deepcopy(made) for name in CHANGES}
    for name, (_, _, change) in CHANGES.items():
        change(contracts[name])
    ended = in_environment("-c", COMPARE_ALL, stdin=json.dumps(contracts))
    assert ended.returncode == 0, ended.stderr
    return {name: (found, needed) for name, (found, needed) in json.loads(ended.stdout).items()}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_needs_a_version(compared: Compared, name: str) -> None:
    part, message, _ = CHANGES[name]
    found, needed = compared[name]
    assert [grade for grade, said in found if message in said] == [part], found
    assert needed == NEEDED[part], found


def test_the_same_contract_needs_no_version(compared: Compared) -> None:
    assert compared["released"] == ([], [1, 4, 2])


def test_a_breaking_change_is_refused_without_its_version(made: Contract, tmp_path: Path) -> None:
    small = {**made, "schema": [table(made, "bar_1h")], "slaProperties": []}
    released = written(tmp_path, "released", {**small, "version": "1.4.0"})

    def ended(version: str) -> subprocess.CompletedProcess[str]:
        changed = copy.deepcopy({**small, "version": version})
        CHANGES["a column is removed"][-1](changed)
        return check("--contract", written(tmp_path, "changed", changed), "compare", "--released", released)

    refused, accepted = ended("1.4.0"), ended("2.0.0")
    change = "Removed property vwap at schema.bar_1h.properties.vwap"
    assert (refused.returncode, refused.stdout) == (1, f"major: {change}\n")
    assert refused.stderr == (
        f"error: The contract has version 1.4.0, which is too low after the released 1.4.0: {change}. Set VERSION in "
        "tools/data_contract.py to 2.0.0, run `.venv/bin/python -m tools.data_contract`, and describe the change in "
        "CHANGELOG.md. Or undo the change.\n"
    )
    assert (accepted.returncode, accepted.stderr) == (0, "version 2.0.0 may follow the released 1.4.0\n")
    assert ended("1.5").stderr == "error: 1.5 is not a version: it must be three numbers, such as 1.4.0.\n"


def test_a_file_that_is_no_contract_is_refused_in_one_line(tmp_path: Path) -> None:
    ended = check("--contract", written(tmp_path, "none", {"kind": "DataContract"}), "compare")
    assert (ended.returncode, ended.stderr.count("\n"), ended.stderr[:6]) == (1, 1, "error:"), ended.stderr
