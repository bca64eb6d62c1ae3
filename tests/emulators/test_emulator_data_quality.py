"""The Glue Data Quality emulator: each deployed rule fails on a planted defect, and a run needs its permissions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aws_parts import Aws, allow, wait_for
from botocore.exceptions import ClientError

from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.bars import glue_columns
from emulators.aws import dqdl

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "dev" / "Barflow-dev-Catalog.json"
RULESETS = {
    item["Properties"]["Name"]: item["Properties"]["Ruleset"]
    for item in json.loads(SNAPSHOT.read_text())["Resources"].values()
    if item["Type"] == "AWS::Glue::DataQualityRuleset"
}
RULES = [rule.text for rule in dqdl.parse(RULESETS["barflow-dev-bars"])]
NAME, MONTH = "quality", "2025-07"
Columns = dict[str, list[Any]]
KNOWN = datetime(2025, 7, 2, 14, tzinfo=UTC)
OPENS = [datetime(2025, 7, 2, 13, minute, tzinfo=UTC) for minute in (30, 35, 40)]


def good_bars() -> Columns:
    """Return three bars that meet every rule."""
    prices = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0}
    bars: Columns = {name: [price] * 3 for name, price in prices.items()}
    bars |= {"ts": list(OPENS), "session_date": [date(2025, 7, 2)] * 3, "volume": [5] * 3, "revision": [0] * 3}
    return bars | {"known_from": [KNOWN] * 3}


def with_value(column: str, value: Any) -> Callable[[Columns], None]:
    return lambda bars: bars[column].__setitem__(1, value)


def without_rows(bars: Columns) -> None:
    for values in bars.values():
        values.clear()


HIGH_BELOW, OTHER_MONTH = RULES[-2], RULES[-1]
KNOWN_BEFORE = 'CustomSql "select count(*) from primary where known_from >= known_until" = 0'
# The defect of each rule, and the rules that must fail on it. A price that is missing is no positive price either.
DEFECTS: dict[str, tuple[Callable[[Columns], None], set[str]]] = {
    "RowCount > 0": (without_rows, set()),
    'IsPrimaryKey "symbol" "ts"': (with_value("ts", OPENS[0]), set()),
    'IsComplete "ts"': (with_value("ts", None), {'IsPrimaryKey "symbol" "ts"'}),
    'IsComplete "session_date"': (with_value("session_date", None), set()),
    'IsComplete "known_from"': (with_value("known_from", None), set()),
    **{
        f'IsComplete "{name}"': (with_value(name, None), {f'ColumnValues "{name}" > 0'})
        for name in ("open", "high", "low", "close")
    },
    **{
        f'IsComplete "{name}"': (with_value(name, None), {f'ColumnValues "{name}" >= 0'})
        for name in ("volume", "revision")
    },
    **{f'ColumnValues "{name}" > 0': (with_value(name, 0.0), {HIGH_BELOW}) for name in ("open", "high", "close")},
    'ColumnValues "low" > 0': (with_value("low", 0.0), set()),
    'ColumnValues "volume" >= 0': (with_value("volume", -1), set()),
    'ColumnValues "revision" >= 0': (with_value("revision", -1), set()),
    HIGH_BELOW: (with_value("high", 10.5), set()),
    OTHER_MONTH: (with_value("session_date", date(2025, 6, 30)), set()),
}


class Quality:
    """A table of bars on the emulator, with a deployed ruleset. Each symbol is a partition of its own."""

    def __init__(
        self, aws: Aws, name: str, ruleset: str, columns: Sequence[tuple[str, str]], schema: pa.Schema
    ) -> None:
        self.aws, self.glue, self.name, self.schema = aws, aws.client("glue"), name, schema
        self.rules = [rule.text for rule in dqdl.parse(ruleset)]
        aws.client("s3").create_bucket(Bucket=name)
        self.glue.create_database(DatabaseInput={"Name": name})
        described = [{"Name": column, "Type": kind} for column, kind in columns]
        self.storage = {"Location": f"s3://{name}/bars/", "Columns": described}
        table = {
            "Name": "bars",
            "StorageDescriptor": self.storage,
            "PartitionKeys": [{"Name": name, "Type": "string"} for name in ("symbol", "month")],
            "Parameters": {"classification": "parquet"},
        }
        self.glue.create_table(DatabaseName=name, TableInput=table)
        template = {"Resources": {"Rules": {
            "Type": "AWS::Glue::DataQualityRuleset", "Properties": {"Name": name, "Ruleset": ruleset}
        }}}  # fmt: skip
        self.deploy(name, template)

    def deploy(self, stack: str, template: dict[str, Any]) -> None:
        self.aws.client("cloudformation").create_stack(StackName=stack, TemplateBody=json.dumps(template))

    def store(self, symbol: str, bars: Columns) -> None:
        file = io.BytesIO()
        nullable = pa.schema([field.with_nullable(True) for field in self.schema])
        pq.write_table(pa.table({name: bars[name] for name in nullable.names}, nullable), file)
        place = f"bars/symbol={symbol}/month={MONTH}"
        self.aws.put(f"{place}/bars.parquet", file.getvalue(), bucket=self.name)
        location = self.storage | {"Location": f"s3://{self.name}/{place}/"}
        partition = {"Values": [symbol, MONTH], "StorageDescriptor": location}
        self.glue.create_partition(DatabaseName=self.name, TableName="bars", PartitionInput=partition)

    def start(self, predicate: str, role: str = "r", caller: str | None = None, **more: Any) -> str:
        table = {"DatabaseName": self.name, "TableName": "bars", "AdditionalOptions": {"pushDownPredicate": predicate}}
        given = {"DataSource": {"GlueTable": table}, "Role": role, "RulesetNames": [self.name]} | more
        return str(self.aws.client("glue", caller).start_data_quality_ruleset_evaluation_run(**given)["RunId"])

    def run(self, predicate: str, **more: Any) -> dict[str, Any]:
        run_id = self.start(predicate, **more)
        ended = ("SUCCEEDED", "FAILED")
        found: dict[str, Any] = wait_for(
            lambda: self.glue.get_data_quality_ruleset_evaluation_run(RunId=run_id),
            lambda item: item["Status"] in ended,
        )
        return found

    def failed(self, symbol: str) -> dict[str, str]:
        """Return the reasons of the rules that fail on a symbol's bars."""
        run = self.run(f"symbol = '{symbol}'")
        assert run["Status"] == "SUCCEEDED", run.get("ErrorString")
        (result_id,) = run["ResultIds"]
        result = self.glue.get_data_quality_result(ResultId=result_id)
        rules = result["RuleResults"]
        assert [item["Description"] for item in rules] == self.rules
        failed = {item["Description"]: item["EvaluationMessage"] for item in rules if item["Result"] == "FAIL"}
        assert {item["Result"] for item in rules} <= {"PASS", "FAIL"}
        assert result["Score"] == pytest.approx(1 - len(failed) / len(rules))
        return failed


@pytest.fixture(scope="module")
def quality(aws: Aws) -> Quality:
    return Quality(aws, NAME, RULESETS["barflow-dev-bars"], glue_columns(), arrow_schema())


def test_the_rules_of_the_history_fail_on_a_version_that_was_superseded_before_it_was_known(aws: Aws) -> None:
    columns = [*glue_columns(), ("known_until", "timestamp")]
    history = Quality(aws, "history-quality", RULESETS["barflow-dev-history"], columns, history_schema())
    later = KNOWN + timedelta(minutes=5)
    # Two versions of one bar, and the first one of another.
    good = good_bars() | {"known_from": [KNOWN, later, KNOWN], "known_until": [later, later + timedelta(days=1), later]}
    good["ts"][1] = good["ts"][0]
    defects: dict[str, tuple[str, int, Any, set[str]]] = {
        "SUPERSEDED": ("known_until", 0, KNOWN, {KNOWN_BEFORE}),
        "UNKNOWN": ("known_from", 2, None, {'IsComplete "known_from"', 'IsPrimaryKey "symbol" "ts" "known_from"'}),
        "ENDLESS": ("known_until", 2, None, {'IsComplete "known_until"'}),
        "TWICE": ("known_from", 1, KNOWN, {'IsPrimaryKey "symbol" "ts" "known_from"'}),
    }
    history.store("GOOD", good)
    assert history.failed("GOOD") == {}
    for symbol, (column, place, value, rules) in defects.items():
        bad = {name: list(values) for name, values in good.items()}
        bad[column][place] = value
        history.store(symbol, bad)
        assert set(history.failed(symbol)) == rules, symbol


def test_every_rule_has_a_defect() -> None:
    assert set(DEFECTS) == set(RULES)


def test_good_bars_meet_every_rule(quality: Quality) -> None:
    quality.store("GOOD", good_bars())
    assert quality.failed("GOOD") == {}


@pytest.mark.parametrize("number", range(len(RULES)), ids=RULES)
def test_each_rule_fails_on_its_defect_and_no_other_rule_does(quality: Quality, number: int) -> None:
    rule = RULES[number]
    plant, others = DEFECTS[rule]
    bars = good_bars()
    plant(bars)
    quality.store(f"BAD{number}", bars)
    failed = quality.failed(f"BAD{number}")
    assert set(failed) == {rule} | others
    assert "does not meet the constraint requirement!" in failed[rule]


def test_a_run_reads_only_the_partitions_of_its_predicate(quality: Quality) -> None:
    quality.store("ONE", good_bars())
    bad = good_bars()
    bad["volume"][0] = -1
    quality.store("TWO", bad)
    assert quality.failed("ONE") == {}
    run = quality.run("volume > 0")
    assert run["Status"] == "FAILED"
    assert "can not be resolved against partition columns: ['symbol', 'month']" in run["ErrorString"]


def test_the_same_client_token_starts_no_second_run(quality: Quality) -> None:
    first, second = (quality.start("month = '2025-07'", ClientToken="the-run") for _ in range(2))
    assert first == second
    assert quality.start("month = '2025-07'", ClientToken="another") != first


def test_unknown_rulesets_tables_and_runs_are_rejected(quality: Quality) -> None:
    with pytest.raises(ClientError, match="EntityNotFound"):
        quality.start("month = 'x'", RulesetNames=["nowhere"])
    with pytest.raises(ClientError, match="EntityNotFound"):
        quality.start("month = 'x'", DataSource={"GlueTable": {"DatabaseName": NAME, "TableName": "nowhere"}})
    for call, given in (
        ("get_data_quality_ruleset_evaluation_run", {"RunId": "x"}),
        ("get_data_quality_result", {"ResultId": "x"}),
    ):
        with pytest.raises(ClientError, match="EntityNotFound"):
            getattr(quality.glue, call)(**given)


@pytest.mark.parametrize(
    "rules",
    [
        'Rules = [ColumnValue "open" > 0]',
        "RowCount > 0",
        "Rules = []",
        "Rules = [RowCount > few]",
        "Rules = [IsComplete 'ts']",
    ],
)
def test_rules_that_glue_cannot_parse_are_rejected(rules: str) -> None:
    with pytest.raises(ValueError, match=r"DataQuality rules cannot be parsed\."):
        dqdl.parse(rules)


def test_a_rule_on_a_column_that_does_not_exist_is_an_error(quality: Quality) -> None:
    import duckdb

    db = duckdb.connect()
    db.execute('create view "primary" as select 1 as a')
    with pytest.raises(duckdb.Error, match="price"):
        dqdl.evaluate(db, dqdl.parse('Rules = [IsComplete "price"]')[0])


def test_a_run_has_the_permissions_of_its_role_and_its_caller_may_start_it_only_with_pass_role(
    aws: Aws, quality: Quality
) -> None:
    quality.store("SEEN", good_bars())
    aws.create_role("evaluates-nothing", allow("glue:*"))
    run = quality.run("symbol = 'SEEN'", role="evaluates-nothing")
    assert run["Status"] == "FAILED"
    assert "s3:GetObject on resource: arn:aws:s3:::aws-glue-ml-data-quality-assets-us-east-1" in run["ErrorString"]
    aws.create_role("cannot-pass", allow("glue:*"))
    with pytest.raises(ClientError, match="not authorized to perform: iam:PassRole"):
        quality.start("symbol = 'SEEN'", caller="cannot-pass")
