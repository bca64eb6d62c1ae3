"""Rules of DQDL, Glue's data quality language: parsed here, and evaluated by DuckDB on a view named ``primary``.

This module knows only the rule types in use. It rejects other text, as Glue rejects what it cannot parse.
https://docs.aws.amazon.com/glue/latest/dg/dqdl.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb

QUOTED, COMPARISON = r'"(?:[^"\\]|\\.)*"', r"(?P<operator>>=|<=|!=|=|>|<)\s*(?P<number>-?\d+(?:\.\d+)?)"
RULESET = re.compile(r"\s*Rules\s*=\s*\[(?P<rules>.*)\]\s*", re.DOTALL)
PARTS = re.compile(rf"{QUOTED}|[^\",]+|(?P<comma>,)", re.DOTALL)
RULES = {
    "RowCount": re.compile(rf"RowCount\s+{COMPARISON}"),
    "IsComplete": re.compile(rf"IsComplete\s+(?P<columns>{QUOTED})"),
    "IsPrimaryKey": re.compile(rf"IsPrimaryKey\s+(?P<columns>{QUOTED}(?:\s+{QUOTED})*)"),
    "ColumnValues": re.compile(rf"ColumnValues\s+(?P<columns>{QUOTED})\s+{COMPARISON}"),
    "CustomSql": re.compile(rf"CustomSql\s+(?P<columns>{QUOTED})\s+{COMPARISON}"),
}
# Functions of Spark SQL that DuckDB lacks.
MACROS = "create macro date_format(day, format) as strftime(day, replace(replace(format, 'yyyy', '%Y'), 'MM', '%m'))"


# The DQDL of each ruleset, by name.
# The names of the rulesets of each evaluation, by the id of its run and by the id of its result.
RULESETS: dict[str, str] = {}
EVALUATED: dict[str, list[str]] = {}


@dataclass(frozen=True)
class Rule:
    """A rule: its text, its type, its quoted columns or SQL, and its comparison (``> 0``)."""

    text: str
    kind: str
    quoted: tuple[str, ...]
    comparison: str


def create_ruleset(name: str, text: str) -> None:
    """Create a ruleset. Raise ValueError if its DQDL cannot be parsed."""
    parse(text)
    RULESETS[name] = text


def parse(ruleset: str) -> list[Rule]:
    """Return the rules of a ruleset. Raise ValueError if it cannot be parsed."""
    whole = RULESET.fullmatch(ruleset)
    rules = [_rule(text) for text in _split(whole["rules"])] if whole else []
    if not rules:
        raise ValueError("DataQuality rules cannot be parsed.")
    return rules


def _split(rules: str) -> Iterator[str]:
    """Yield the text of each rule. A comma inside quotes separates no rules."""
    text = ""
    for part in PARTS.finditer(rules):
        if part["comma"]:
            yield text.strip()
            text = ""
        else:
            text += part[0]
    yield text.strip()


def _rule(text: str) -> Rule:
    kind = text.split(maxsplit=1)[0] if text else ""
    found = RULES[kind].fullmatch(text) if kind in RULES else None
    if found is None:
        raise ValueError(f"DataQuality rules cannot be parsed. Unknown or wrong rule: {text}")
    named = found.groupdict()
    quoted = tuple(item[1:-1] for item in re.findall(QUOTED, named.get("columns") or ""))
    comparison = f"{named['operator']} {named['number']}" if named.get("operator") else ""
    return Rule(text, kind, quoted, comparison)


def evaluate(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    """Return None if the rule holds on the view ``primary``, else the reason. Raise duckdb.Error if it cannot run."""
    return CHECKS[rule.kind](db, rule)


def _row_count(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    count, holds = _row(db, f'select count(*), count(*) {rule.comparison} from "primary"')
    return None if holds else f"Dataset.RowCount: {count} does not meet the constraint requirement!"


def _is_complete(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    missing, rows = _row(db, f'select count(*) filter ("{rule.quoted[0]}" is null), count(*) from "primary"')
    return None if not missing else f"Value: {1 - missing / rows} does not meet the constraint requirement!"


def _is_primary_key(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    columns = ", ".join(f'"{name}"' for name in rule.quoted)
    some_null = " or ".join(f'"{name}" is null' for name in rule.quoted)
    keys, nulls, rows = _row(
        db, f'select count(distinct ({columns})), count(*) filter ({some_null}), count(*) from "primary"'
    )
    return None if keys == rows and not nulls else f"Value: {keys / rows} does not meet the constraint requirement!"


def _column_values(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    """Return the reason with the first value that fails the comparison. A missing value fails, as on Glue."""
    column = f'"{rule.quoted[0]}"'
    wrong = f"{column} is null or not ({column} {rule.comparison})"
    found = db.execute(f'select {column} from "primary" where {wrong} order by 1 nulls first limit 1').fetchone()
    value = None if found is None else "NULL" if found[0] is None else found[0]
    return None if found is None else f"Value: {value} does not meet the constraint requirement!"


def _custom_sql(db: duckdb.DuckDBPyConnection, rule: Rule) -> str | None:
    query = re.sub(r"\bprimary\b", '"primary"', rule.quoted[0])
    value, holds = _row(db, f"select value, value {rule.comparison} from ({query}) as answer(value)")
    return None if holds else f"Value: {float(value)} does not meet the constraint requirement!"


def _row(db: duckdb.DuckDBPyConnection, query: str) -> tuple[float, ...]:
    found = db.execute(query).fetchone()
    assert found is not None
    return found


CHECKS: dict[str, Callable[[duckdb.DuckDBPyConnection, Rule], str | None]] = {
    "RowCount": _row_count,
    "IsComplete": _is_complete,
    "IsPrimaryKey": _is_primary_key,
    "ColumnValues": _column_values,
    "CustomSql": _custom_sql,
}
