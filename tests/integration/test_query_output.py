"""`barflow sql` takes every read-only statement and prints valid JSON, on streams of any encoding."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from console import in_process
from hypothesis import example, given
from hypothesis import strategies as st

from barflow.cli.common import print_json
from barflow.cli.terminal import show_rows
from barflow.errors import BadInputError
from barflow.warehouse.queries import query_read_only

BARFLOW = Path(sys.executable).with_name("barflow")


def refuse(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def run_sql(dsn: str, query: str, *options: str, encoding: str) -> tuple[int, bytes]:
    """Run `barflow sql` in a process of its own. Return its exit code and what it wrote to stdout."""
    settings = {**settings_of(dsn), "PYTHONIOENCODING": encoding}
    command = [str(BARFLOW), "sql", query, *options]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout


def run_sql_here(dsn: str, query: str, *options: str, encoding: str) -> tuple[int, bytes]:
    """Run `barflow sql` in this process with a stdout of that encoding, and return the same."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding)
    code = in_process("sql", query, *options, settings=settings_of(dsn), stdout=stdout).code
    stdout.flush()
    return code, stdout.buffer.getvalue()


def settings_of(dsn: str) -> dict[str, str]:
    return {"BARFLOW_WAREHOUSE_DSN": dsn, "BARFLOW_LAKE_URI": "unused"}


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select x from (values ('AAPL'), ('MSFT')) v (x) where x like 'A%'", [("AAPL",)]),
        ("select 7 % 4", [(3,)]),
        ("select '100%', '%s', '%(a)s', '%%'", [("100%", "%s", "%(a)s", "%%")]),
    ],
)
def test_a_percent_sign_is_only_text(warehouse_dsn: str, query: str, rows: list[tuple[Any, ...]]) -> None:
    assert query_read_only(warehouse_dsn, query)[1] == rows


def test_two_statements_are_still_rejected(warehouse_dsn: str) -> None:
    with pytest.raises(BadInputError, match="cannot insert multiple commands"):
        query_read_only(warehouse_dsn, "select 7 % 4; select 1")


def test_json_has_numbers_as_numbers_and_null_for_what_it_cannot_hold(
    warehouse_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query = """
    select sum(v) as total, 0.5::numeric as half, 'NaN'::float8 as nan, '-Infinity'::float8 as low,
           'Infinity'::numeric as high, 10::numeric ^ 5000 as huge, array[1.5::numeric, 'NaN'] as list,
           9007199254740993::numeric as exact, '2025-07-02'::date as day
    from (values (9223372036854775807::bigint), (1)) t (v)
    """
    show_rows(*query_read_only(warehouse_dsn, query), "json")
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row == {
        "total": 9223372036854775808,
        "half": 0.5,
        "nan": None,
        "low": None,
        "high": None,
        "huge": None,
        "list": [1.5, None],
        "exact": 9007199254740993,
        "day": "2025-07-02",
    }


def test_json_loses_no_column_in_silence(warehouse_dsn: str) -> None:
    with pytest.raises(BadInputError, match="two columns have the same name"):
        show_rows(*query_read_only(warehouse_dsn, "select 1 as a, 2 as a"), "json")


@example(math.nan)
@example([Decimal("NaN"), -math.inf])
@given(st.recursive(st.none() | st.floats() | st.decimals(allow_nan=None) | st.text(), st.lists, max_leaves=5))
def test_every_value_is_printed_as_valid_json(value: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_json({"value": value})
    json.loads(out.getvalue(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("run", "encoding"), [(run_sql, "ascii"), *((run_sql_here, name) for name in ("latin-1", "cp1252", "utf-8"))]
)
def test_a_stream_of_another_encoding_shows_everything(warehouse_dsn: str, run: Any, encoding: str) -> None:
    code, out = run(warehouse_dsn, "select '✓ ✗ … ü' as text", encoding=encoding)
    assert code == 0
    shown = out.decode(encoding)
    expected = {"utf-8": "✓ ✗ … ü", "ascii": "ok X ... \\xfc", "latin-1": "ok X ... ü", "cp1252": "ok X … ü"}
    assert expected[encoding] in shown
    code, out = run(warehouse_dsn, "select '✓' as text", "--format", "json", encoding=encoding)
    assert (code, json.loads(out)) == (0, [{"text": "✓"}])
