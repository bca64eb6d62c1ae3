"""Check datacontract.yaml: compare it with the released contract, and test stores against it. `make contract` runs it.

    build/contract/bin/python tools/check_contract.py compare   # is the version high enough for what changed?
    build/contract/bin/python tools/check_contract.py test      # the stores of BARFLOW_LAKE_URI, BARFLOW_WAREHOUSE_DSN

It runs in build/contract, the environment of datacontract-cli, and imports nothing of this repository.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from datacontract.data_contract import DataContract
from datacontract.model.breaking import BreakingChangeEntry, Direction
from datacontract.model.exceptions import DataContractException
from datacontract.model.run import ResultEnum
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, Server
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).parents[1]
PUBLISHED, RELEASED = ROOT / "datacontract.yaml", ROOT / "docs" / "contracts"
LAKE, WAREHOUSE = "BARFLOW_LAKE_URI", "BARFLOW_WAREHOUSE_DSN"
DEMO = ROOT / ".barflow" / "lake"
PARTS = ("major", "minor", "patch")
TABLES = "tables"
# Another set of values breaks readers in both directions, and other partitions break the paths of files. For
# datacontract-cli, how often data arrive is a description.
BREAKING_RULES = ("enum-constraint-changed",)
BREAKING_PATHS = (".partitioned", ".partitionKeyPosition", "slaProperties.frequency.value")

# What the Hive types of the lake are in a Parquet file.
ARROW_TYPES = {
    "timestamp": "timestamp[us, tz=UTC]", "date": "date32[day]", "double": "double", "bigint": "int64", "int": "int32",
    "string": "string",
}  # fmt: skip

Check = dict[str, Any]
Version = tuple[int, int, int]
Change = tuple[str, str]


class ContractError(Exception):
    """A contract or a store that cannot be checked, with what to do."""


def read(path: Path) -> OpenDataContractStandard:
    """Return a contract. Raise ContractError if it is not valid."""
    try:
        return DataContract(data_contract_file=str(path)).get_data_contract()
    except DataContractException as error:
        raise ContractError(f"{path} is not a valid contract: {error.reason}") from None


def changes(old: OpenDataContractStandard, new: OpenDataContractStandard) -> list[Change]:
    """Return every change from one contract to another, with the part of the version that it raises, worst first.

    A change is "major" if readers of the old contract can meet data that they do not expect, or if no program can tell,
    as with the query of a rule. It is "minor" if the new contract promises more, "patch" if it only describes better.
    """
    before, after = _by_promise(old), _by_promise(new)
    nothing = old.model_copy(update={"schema_": [], "slaProperties": []})
    entries = [
        entry
        for name in {**before, **after}
        for entry in _compare(before.get(name, nothing), after.get(name, nothing))
        if name == TABLES or entry.path.startswith("slaProperties.")
    ]
    graded = [(_part(entry), _said(entry)) for entry in entries]
    return sorted(graded, key=lambda change: PARTS.index(change[0]))


def _by_promise(contract: OpenDataContractStandard) -> dict[str, OpenDataContractStandard]:
    """Return the contract without its service levels, and one for each of them with the table that it names.

    datacontract-cli compares service levels by their kind, and so would miss all but one of the freshnesses.
    """
    levels = {f"{level.property} {level.element}": level for level in contract.slaProperties or []}
    parts = {TABLES: contract.model_copy(update={"slaProperties": []})}
    for name, level in levels.items():
        tables = [it for it in contract.schema_ if str(level.element).startswith(f"{it.name}.")]
        parts[name] = contract.model_copy(update={"schema_": tables, "slaProperties": [level]})
    return parts


def _compare(old: OpenDataContractStandard, new: OpenDataContractStandard) -> list[BreakingChangeEntry]:
    found = DataContract(data_contract=old).breaking(DataContract(data_contract=new))
    # An entry without a direction is inside of an added or removed element, which has an entry of its own.
    return [entry for entry in found.entries if entry.path != "version" and entry.direction]


def _said(entry: BreakingChangeEntry) -> str:
    return entry.message if entry.path in entry.message else f"{entry.message} at {entry.path}"


def _part(entry: BreakingChangeEntry) -> str:
    if entry.rule_id in BREAKING_RULES or entry.path.endswith(BREAKING_PATHS):
        return "major"
    if entry.direction in (Direction.LOOSENS, Direction.BOTH, Direction.UNDETERMINED):
        return "major"
    return "minor" if entry.direction == Direction.TIGHTENS else "patch"


def needed(released: Version, found: list[Change]) -> Version:
    """Return the lowest version that may follow the released one with these changes."""
    major, minor, patch = released
    raised = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, patch + 1)}
    return raised[found[0][0]] if found else released


def compare(old: OpenDataContractStandard, new: OpenDataContractStandard) -> None:
    """Print what changed since the released contract. Raise ContractError if the version is too low for it."""
    found, released, version = changes(old, new), _version(old), _version(new)
    for part, message in found:
        print(f"{part}: {message}")
    lowest = needed(released, found)
    if version < lowest:
        worst = [message for part, message in found if part == found[0][0]] or ["It is older."]
        more = f", and {len(worst) - 1} more" if len(worst) > 1 else ""
        raise ContractError(
            f"The contract has version {_text(version)}, which is too low after the released {_text(released)}: "
            f"{worst[0]}{more}. Set VERSION in tools/data_contract.py to {_text(lowest)}, run "
            "`.venv/bin/python -m tools.data_contract`, and describe the change in CHANGELOG.md. Or undo the change."
        )
    print(f"version {_text(version)} may follow the released {_text(released)}", file=sys.stderr)


def newest_release() -> Path:
    """Return the released contract with the highest version. The file has the version as its name."""
    return max(RELEASED.glob("*.yaml"), key=lambda path: _numbers(path.stem))


def _version(contract: OpenDataContractStandard) -> Version:
    return _numbers(str(contract.version))


def _numbers(written: str) -> Version:
    try:
        major, minor, patch = map(int, written.split("."))
    except ValueError:
        raise ContractError(f"{written} is not a version: it must be three numbers, such as 1.4.0.") from None
    return major, minor, patch


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def test(contract: OpenDataContractStandard, *, freshness: bool) -> list[Check]:
    """Test the stores that the environment names, and return each check. Raise ContractError if it names none."""
    lake = os.environ.get(LAKE) or ("" if os.environ.get(WAREHOUSE) or not DEMO.exists() else str(DEMO))
    checks: list[Check] = []
    if lake:
        folder = _folder(lake)
        try:
            with _files_as_tables(contract, folder) as server:
                checks += _test(contract, server, {}, freshness=freshness)
            checks += [check for table in _of_lake(contract) for check in _file_types(table, folder / table.name)]
        except (duckdb.Error, pa.ArrowException) as error:
            raise _unreadable("lake", str(error), LAKE) from None
    if dsn := os.environ.get(WAREHOUSE):
        named = next(it for it in contract.servers if it.server == "warehouse")
        checks += _test(contract, named, _login(dsn), freshness=freshness)
    if not checks:
        raise ContractError(f"No store was named. Set {LAKE} or {WAREHOUSE}, or run `make demo`.")
    return checks


def _test(
    contract: OpenDataContractStandard, server: Server, options: dict[str, str], *, freshness: bool
) -> list[Check]:
    store = _store(next(it for it in contract.servers if it.server == server.server))
    tables = [table for table in contract.schema_ if _store(table) == store]
    names = {table.name for table in tables}
    ages = [it for it in contract.slaProperties or [] if it.element and it.element.split(".")[0] in names and freshness]
    part = contract.model_copy(update={"schema_": tables, "slaProperties": ages, "servers": [server]})
    run = DataContract(data_contract=part, server=server.server, config=options).test()
    for check in run.checks:
        if check.model is None and check.result != ResultEnum.passed:  # of the whole store, such as a lost connection
            raise _unreadable(store, str(check.reason), LAKE if store == "lake" else WAREHOUSE)
    return [check.model_dump(mode="json", include={"model", "field", "type", "name", "result", "reason"})
            for check in run.checks]  # fmt: skip


def _folder(lake: str) -> Path:
    path = lake.removeprefix("file://")
    if "://" in path or not Path(path).is_dir():
        raise ContractError(
            f"{lake} is no folder. Set {LAKE} to the folder of the lake. For AWS, run "
            "`datacontract test --server lake-aws`."
        )
    return Path(path).resolve()


def _of_lake(contract: OpenDataContractStandard) -> list[SchemaObject]:
    return [table for table in contract.schema_ if _store(table) == "lake"]


def _file_types(table: SchemaObject, folder: Path) -> list[Check]:
    """Return a check per column: that every file has it in exactly its type.

    For datacontract-cli, a whole number and a double are the same type in a file.
    """
    files = sorted(folder.glob("**/*.parquet"))
    schemas = [pq.read_schema(file) for file in files]
    checks = []
    for column in table.properties:
        if column.partitioned or not files:
            continue
        kinds = [str(schema.field(column.name).type) if column.name in schema.names else "none" for schema in schemas]
        expected = ARROW_TYPES[column.physicalType]
        wrong = [(file, kind) for file, kind in zip(files, kinds, strict=True) if kind != expected]
        reason = f"{len(wrong)} of {len(files)} files differ, such as {wrong[0][1]} in {wrong[0][0]}" if wrong else None
        checks.append({
            "model": table.name, "field": column.name, "type": "file_type", "reason": reason,
            "name": f"Check that every file has column {column.name} as {expected}",
            "result": "failed" if wrong else "passed",
        })  # fmt: skip
    return checks


def _unreadable(store: str, reason: str, setting: str) -> ContractError:
    first = reason.strip().splitlines()[0]
    return ContractError(f"Cannot test the {store}: {first}. Check {setting}, then run it again.")


@contextmanager
def _files_as_tables(contract: OpenDataContractStandard, folder: Path) -> Iterator[Server]:
    """Yield a DuckDB database with a view for each table of the lake.

    datacontract-cli itself reads Parquet files into tables of the contract's types, and so checks no type. A table
    without files is empty: the contract says which tables must have rows.
    """
    with tempfile.TemporaryDirectory(prefix="barflow-contract-") as made:
        path = Path(made) / "lake.duckdb"
        with duckdb.connect(str(path)) as connection:
            for table in _of_lake(contract):
                connection.execute(_as_table(table, folder / table.name))
        yield Server(server="lake", type="duckdb", database=str(path))


def _as_table(table: SchemaObject, folder: Path) -> str:
    if any(folder.glob("**/*.parquet")):
        files = f"{folder}/**/*.parquet".replace("'", "''")
        options = "union_by_name = true, hive_partitioning = true, hive_types_autocast = false"
        return f"create view {table.name} as select * from read_parquet('{files}', {options})"  # noqa: S608
    columns = ", ".join(f'"{column.name}" {_duckdb_type(column.physicalType)}' for column in table.properties)
    return f"create table {table.name} ({columns})"


def _duckdb_type(hive: str) -> str:
    return "timestamptz" if hive == "timestamp" else hive


def _login(dsn: str) -> dict[str, str]:
    """Return the DSN as options of datacontract-cli, which asks for a password also where the server does not."""
    try:
        given = conninfo_to_dict(dsn)
    except ProgrammingError:  # its message can hold a part of the DSN
        raise ContractError(f"{WAREHOUSE} is no DSN. Write it as postgresql://USER:PASSWORD@HOST/DATABASE.") from None
    names = {"host": "HOST", "port": "PORT", "user": "USERNAME", "password": "PASSWORD", "dbname": "DATABASE"}
    options = {f"DATACONTRACT_POSTGRES_{option}": str(given[name]) for name, option in names.items() if given.get(name)}
    return {"DATACONTRACT_POSTGRES_PASSWORD": "unused", **options}


def _store(described: Any) -> str:
    return next(str(it.value) for it in described.customProperties if it.property == "store")


def _report(checks: list[Check]) -> None:
    for table, count in Counter(check["model"] for check in checks).items():
        good = sum(check["model"] == table and check["result"] == "passed" for check in checks)
        print(f"{table}: {good} of {count} checks passed", file=sys.stderr)
    for check in checks:
        if check["result"] != "passed":
            print(f"{check['result']}: {check['model']}: {check['name']}: {check['reason']}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    found = argparse.ArgumentParser(description="Check datacontract.yaml.")
    found.add_argument("--contract", type=Path, default=PUBLISHED, help="the contract [datacontract.yaml]")
    commands = found.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="compare it with the released contract")
    comparing.add_argument("--released", type=Path, help="the released contract [the newest of docs/contracts]")
    testing = commands.add_parser("test", help="test the stores of the environment against it")
    testing.add_argument("--no-freshness", action="store_true", help="do not check the age of the newest bar")
    testing.add_argument("--json", action="store_true", help="print every check as one JSON object")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run one command. Return 0, or 1 if a check failed or the version is too low."""
    chosen = parser().parse_args(argv)
    logging.getLogger().setLevel(logging.CRITICAL)  # the checks report every failure
    try:
        if chosen.command == "compare":
            compare(read(chosen.released or newest_release()), read(chosen.contract))
            return 0
        checks = test(read(chosen.contract), freshness=not chosen.no_freshness)
    except ContractError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _report(checks) if not chosen.json else print(json.dumps({"checks": checks}))
    return 0 if all(check["result"] == "passed" for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
