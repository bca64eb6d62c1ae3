"""The file of the alert rules: read, validated, with the values of each symbol and the watch lists.

The first of these wins for a value: the rule's for the symbol (``[rule.per_symbol.TSLA]``), the rule's own, the
symbol's default (``[defaults.TSLA]``), the default for all symbols (``[defaults."*"]``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from barflow.alerts.rules import ALL, KINDS, Defaults, Rule, RuleBook
from barflow.errors import BadInputError
from barflow.symbol import EXPECTED, is_symbol
from barflow.toml_files import read_toml

# A resource and not a path, since the package may be in a zip file.
DEFAULT_RULES = resources.files(__package__).joinpath("alerts.toml")
LIST_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")
Model = TypeVar("Model", bound=BaseModel)


def load_rules(path: Path | None = None, option: str = "BARFLOW_ALERTS_FILE") -> RuleBook:
    """Return the rules of a file, or the default rules of the package. ``option`` is what names the file.

    Raises BadInputError that names the file, the rule, the field and the allowed values.
    """
    source: Path | Traversable = path or DEFAULT_RULES
    content = read_toml(source, "alert rules", option)
    try:
        return parse_rules(content)
    except ValueError as error:
        raise BadInputError(f"alert rules {source}: {error}") from None


def parse_rules(content: Mapping[str, Any]) -> RuleBook:
    """Return the rules of a parsed TOML file.

    Raises ValueError that names the rule, the field and the allowed values.
    """
    unknown = sorted(set(content) - {"lists", "defaults", "rule"})
    if unknown:
        raise ValueError(f'{unknown[0]}: unknown; allowed are [lists], [defaults."*"], [defaults.SYMBOL] and [[rule]]')
    lists = _watch_lists(content.get("lists", {}))
    given = content.get("rule", [])
    if not isinstance(given, list) or not all(isinstance(values, dict) for values in given):
        raise ValueError("rule: not a list of tables; write each rule as a table [[rule]]")
    defaults = _tables_by_symbol("defaults", content.get("defaults", {}))
    for symbol, values in defaults.items():
        _validated(f"defaults of {symbol}", Defaults, values)
    rules: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {}
    for place, values in enumerate(given, start=1):
        name = f"rule {values.get('id', f'number {place}')}"
        if name in rules:
            raise ValueError(f"{name}: id: two rules have it; give each rule its own id")
        own = _tables_by_symbol(f"{name}: per_symbol", values.get("per_symbol", {}))
        shared = {"kind": "expression"} if "when" in values else {}
        shared |= {key: value for key, value in values.items() if key != "per_symbol"}
        for table in (shared, *own.values()):
            try:
                table |= {"symbols": with_lists(table["symbols"], lists)} if "symbols" in table else {}
            except ValueError as error:
                raise ValueError(f"{name}: symbols: {error}") from None
        rules[name] = (shared, own)
    symbols = {ALL, *defaults, *(symbol for _, own in rules.values() for symbol in own)}
    by_symbol: dict[str, tuple[Rule, ...]] = {}
    for symbol in sorted(symbols):
        general = {**defaults.get(ALL, {}), **defaults.get(symbol, {})}
        by_symbol[symbol] = tuple(
            _rule(f"{name} for {symbol}" if symbol in own else name, {**general, **values, **own.get(symbol, {})})
            for name, (values, own) in rules.items()
        )
    return RuleBook(by_symbol, lists)


def _watch_lists(tables: Any) -> dict[str, tuple[str, ...]]:
    """Return the symbols of each watch list. Raises ValueError that names the list and what is allowed."""
    if not isinstance(tables, dict):
        raise ValueError('lists: not a table; write [lists] and below it megacaps = ["AAPL", "MSFT"]')
    found = {}
    for name, symbols in tables.items():
        if not LIST_NAME.fullmatch(name):
            raise ValueError(f"lists: {name!r}: must be lower-case letters, digits and _, at most 40")
        if not isinstance(symbols, list) or not symbols:
            raise ValueError(f'lists: {name} = {symbols!r}: must be a list of symbols, such as ["AAPL", "MSFT"]')
        if wrong := [item for item in symbols if not isinstance(item, str) or not is_symbol(item)]:
            raise ValueError(f"lists: {name}: {wrong[0]!r} is not a symbol: use {EXPECTED}")
        found[name] = tuple(dict.fromkeys(item.upper() for item in symbols))
    return found


def with_lists(symbols: Any, lists: Mapping[str, tuple[str, ...]]) -> Any:
    """Return symbols with each ``@name`` replaced by those of the watch list.

    Raises ValueError if no list has the name.
    """
    parts = symbols.split(",") if isinstance(symbols, str) else symbols
    if not isinstance(parts, list):
        return symbols
    found: list[Any] = []
    for part in parts:
        name = part.strip() if isinstance(part, str) else ""
        if not name.startswith("@"):
            found.append(part)
        elif name[1:] in lists:
            found += lists[name[1:]]
        else:
            known = f"lists are {', '.join(f'@{each}' for each in lists)}" if lists else "the file has no [lists]"
            raise ValueError(f"no list is named {name}; {known}")
    return found


def _tables_by_symbol(where: str, tables: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(values, dict) for values in tables.values()):
        raise ValueError(f"{where}: not tables by symbol; write a table for each symbol, such as TSLA")
    for symbol, values in tables.items():
        for name, value in values.items():
            if isinstance(value, dict):
                raise ValueError(f'{where}.{symbol}.{name}: write a symbol with a dot in quotes: "{symbol}.{name}"')
    if wrong := next((symbol for symbol in tables if symbol != ALL and not is_symbol(symbol)), None):
        raise ValueError(f"{where}: {wrong!a} is not a symbol: use {EXPECTED}")
    return {symbol.upper(): {**values} for symbol, values in tables.items()}


def _rule(where: str, values: Mapping[str, Any]) -> Rule:
    model = KINDS.get(str(values.get("kind")))
    if model is None:
        raise ValueError(f"{where}: kind = {values.get('kind')!r}: allowed are {', '.join(KINDS)}")
    return _validated(where, model, values)


def _validated(where: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return the model of these values. Raises ValueError that names the field and the allowed values."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
    if not problem["loc"]:
        raise ValueError(f"{where}: {problem['ctx']['error']}")
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise ValueError(f"{where}: {field}: unknown field; allowed are {', '.join(model.model_fields)}")
    if problem["type"] == "missing":
        raise ValueError(f"{where}: {field} is missing: {str(model.__doc__).splitlines()[0]}")
    if field == "when" and problem["type"] == "value_error":
        raise ValueError(f"{where}: when: {problem['ctx']['error']}")
    allowed = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    allowed = allowed.replace("valid tuple", "list")
    if problem["type"] == "string_pattern_mismatch":
        allowed = "lower-case letters, digits and _, at most 40"
    given = problem["input"]
    shown = f"{given}" if isinstance(given, date) else repr(given)
    raise ValueError(f"{where}: {field} = {shown}: must be {allowed}")
