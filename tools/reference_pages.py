"""The reference pages of the documentation, generated from the code as Markdown.

``PAGES`` maps the path of each page below docs/ to the function that writes it. ``make docs`` calls them through
tools/docs_hooks.py.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import typer
from psycopg.rows import namedtuple_row
from pydantic import TypeAdapter
from pymongo import MongoClient

import barflow
from barflow.cli.main import app
from barflow.market.bars import FIELDS
from barflow.market.validation import REASONS
from barflow.settings import Settings
from barflow.warehouse.migrations import migrate
from config.environment import Environment
from dashboard.app import create_app
from local.services import Services
from local.state import State
from stacks.outputs import OUTPUTS
from tools.markdown_text import anchor, code, page, prose, table
from tools.schema_text import default_of, fields, inputs, meaning, type_of

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
SCHEMA = ROOT / "docs" / "alert-message.schema.json"
RECORD = re.compile(r"# (?P<number>\d+)\. (?P<title>.+)\n\nDate: (?P<date>\d{4}-\d\d-\d\d) · Status: (?P<status>.+)\n")
TARGET = re.compile(r"^(?P<name>[a-z-]+):.*?## (?P<help>.+)$", re.MULTILINE)
# Columns whose names say all in SQL, but not all in a reference.
COLUMNS = {
    "symbol": "Ticker symbol",
    "is_complete": "Whether `bar_count` equals `expected_bars`",
    "load_id": "The load that wrote the row, a key of `ops.load_run`",
    "open_all": "Open, adjusted for splits and dividends, dollars",
    "high_all": "High, adjusted for splits and dividends, dollars",
    "low_all": "Low, adjusted for splits and dividends, dollars",
    "close_all": "Close, adjusted for splits and dividends, dollars",
    "high_bps": "The same for the high",
    "low_bps": "The same for the low",
    "close_bps": "The same for the close",
    "manifests": "Manifests that the load consumed",
    "started_at": "Start of the load, UTC",
    "finished_at": "End of the load, UTC",
    "outcome": "`loaded` or `failed`",
    "error": "Reason of a failure",
    "last_close": "Newest close, dollars",
    "change": "Change of the close since the previous session, dollars",
    "change_pct": "The same in percent",
    "above_sma_20": "last_close / sma_20 - 1",
    "above_sma_50": "last_close / sma_50 - 1",
    "data_until": "Close of the newest bar, UTC",
    "age": "Time since `data_until`",
}
# The theme's switch for a page without headings.
WITHOUT_CONTENTS = "---\nhide:\n  - toc\n---\n\n"
TABLES = """
select c.oid, n.nspname || '.' || c.relname as name, obj_description(c.oid) as meaning
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('market', 'ops', 'sandbox') and c.relkind in ('r', 'v')
order by c.oid"""
COLUMNS_OF = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
    col_description(a.attrelid, a.attnum) as meaning, a.attnotnull as required,
    coalesce(a.attnum = any (k.conkey), false) as in_key
from pg_attribute a left join pg_constraint k on k.conrelid = a.attrelid and k.contype = 'p'
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""


def commands() -> str:
    """Return the page of all commands with their arguments, options and examples."""
    found = list(walk(typer.main.get_command(app)))
    index = table(("command", "what it does"), ((f"[`{name}`](#{anchor(name)})", _first(it)) for name, it in found))
    return page(
        "Commands",
        "Every command prints its help and an example with `--help`. "
        "[Your own services](../your-own-services.md#output-errors-and-exit-codes) explains output and exit codes.",
        index,
        *(_command(name, it) for name, it in found),
    )


def walk(group: Any, prefix: str = "barflow") -> Iterator[tuple[str, Any]]:
    """Yield the full name of each visible command of a Typer group and its subgroups, with the command."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from walk(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _command(name: str, command: Any) -> str:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option" and not item.hidden]
    usage = [name, *(item.name.upper() for item in arguments), *(["[OPTIONS]"] if options else [])]
    parts = [f"## {name}", prose(command.help), code(" ".join(usage))]
    if arguments:
        rows = ((f"`{item.name.upper()}`", item.help or "") for item in arguments)
        parts.append(table(("argument", "meaning"), rows))
    if options:
        parts.append(table(("option", "value", "default", "meaning"), map(_option, options)))
    # A backspace keeps the terminal's help from joining the lines.
    written = re.sub(r"^[\s\b]*Examples?:\s*", "", command.epilog or "")
    if examples := re.split(r"\s{2,}", written) if written else []:
        parts += ["Example:" if len(examples) == 1 else "Examples:", code(*examples)]
    return "\n\n".join(part.strip() for part in parts)


def _option(option: Any) -> tuple[str, str, str, str]:
    value = "" if option.is_flag else _kind(option)
    default = "required" if option.required else "" if option.default in (None, False) else f"`{option.default}`"
    return ", ".join(f"`{name}`" for name in option.opts), value, default, option.help or ""


def settings() -> str:
    """Return the page of the settings that environment variables give."""
    rows = []
    for name, schema in Settings.model_json_schema(by_alias=False)["properties"].items():
        alias = Settings.model_fields[name].validation_alias
        variable = alias if isinstance(alias, str) else f"BARFLOW_{name.upper()}"
        rows.append((f"`{variable}`", type_of(schema), default_of(schema), meaning(schema)))
    return WITHOUT_CONTENTS + page(
        "Settings",
        "Every command and program reads these environment variables. A secret can be the value or a reference: "
        "`secretsmanager:NAME`, or `secretsmanager:NAME#KEY` for one key of a JSON secret. "
        "[Airflow](../airflow.md#settings) has further settings of the DAGs.",
        table(("variable", "type", "default", "meaning"), rows),
    )


def environments() -> str:
    """Return the page of the settings of an environment in config/."""
    schema = TypeAdapter(Environment).json_schema()
    groups = {name: field["$ref"] for name, field in schema["properties"].items() if "$ref" in field}
    own = {name: field for name, field in schema["properties"].items() if name not in groups}
    models = {name: schema["$defs"][reference.rsplit("/", 1)[-1]] for name, reference in groups.items()}
    return page(
        "Environment settings",
        "`config/environments.py` defines the environments dev, staging and prod from these settings. A wrong value "
        "stops the synthesis with the setting's name and the allowed values.",
        *(
            f"## {name}\n\n{prose(model.get('description'))}\n\n{inputs(model, 'unit, or allowed values')}"
            for name, model in [("Environment", {**schema, "properties": own}), *models.items()]
        ),
    )


@cache
def tables() -> str:
    """Return the page of the warehouse's tables, read from a database with every migration applied."""
    with _warehouse() as connection:
        found = connection.execute(TABLES).fetchall()
        columns = {it.name: connection.execute(COLUMNS_OF, [it.oid]).fetchall() for it in found}
    meanings = COLUMNS | {field.name: field.meaning[:1].upper() + field.meaning[1:] for field in FIELDS}
    # A table that is made like another one takes its columns over, but not their comments.
    meanings |= {it.name: it.meaning for held in columns.values() for it in held if it.meaning}
    described: dict[str, str] = {}
    parts = []
    for it in found:
        rows = [
            (
                f"`{column.name}`",
                column.type,
                "no" if column.required else "yes",
                column.meaning or meanings.get(column.name, ""),
            )
            for column in columns[it.name]
        ]
        key = ", ".join(f"`{column.name}`" for column in columns[it.name] if column.in_key)
        about = [f"{it.meaning}."] * bool(it.meaning) + [f"Primary key: {key}."] * bool(key)
        written = table(("column", "type", "NULL", "meaning"), rows)
        first = described.setdefault(written, it.name)
        if first != it.name:
            written = f"The columns are those of [{first}](#{anchor(first)})."
        parts.append(f"## {it.name}\n\n{' '.join(about)}\n\n{written}")
    return page(
        "Tables",
        "The warehouse is PostgreSQL. Readers use the schema `market`. The schema `ops` has the ledger of loads, and "
        "`sandbox` belongs to [the visual job](../visual-job.md). Times are UTC, prices are dollars without "
        "adjustment for splits, and volumes are shares.",
        *parts,
    )


@contextmanager
def _warehouse() -> Iterator[psycopg.Connection[Any]]:
    """Open a connection to an embedded PostgreSQL with every migration applied."""
    # PostgreSQL runs as its own user, which has no access to folders of this one.
    with tempfile.TemporaryDirectory(prefix="barflow-docs-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, lambda _: None, mongo=False) as services:
            migrate(services.warehouse_dsn, ROOT / "sql")
            with psycopg.connect(services.warehouse_dsn, row_factory=namedtuple_row) as connection:
                yield connection


def reason_codes() -> str:
    """Return the page of the codes with which validation rejects a bar."""
    return page(
        "Reason codes",
        "Validation rejects a bar with every code that applies. `barflow rejected show` explains the codes of one bar.",
        table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in REASONS.items())),
    )


def message() -> str:
    """Return the page of the alert message, from its JSON schema."""
    schema = json.loads(SCHEMA.read_text())
    return page(
        "Alert message",
        f"{schema['description']} The JSON schema is [alert-message.schema.json](../alert-message.schema.json).",
        fields(schema),
    )


def outputs() -> str:
    """Return the page of the stacks' outputs."""
    return page(
        "Outputs",
        "`npx cdk deploy --outputs-file cdk-outputs.json` writes these outputs. The runbook is made from them, and "
        "scripts may rely on the keys.",
        table(("stack", "output", "meaning"), ((it.stack, f"`{it.key}`", it.meaning) for it in OUTPUTS)),
    )


def make_targets() -> str:
    """Return the page of the make targets."""
    found = TARGET.finditer((ROOT / "Makefile").read_text())
    return page(
        "Make targets",
        'Pass options with `ARGS="…"`, and choose the environment with `ENV=dev`.',
        table(("target", "what it does"), ((f"`make {it['name']}`", it["help"]) for it in found)),
    )


def api() -> str:
    """Return the page of the analysts' page's HTTP API, from its OpenAPI document."""
    client: MongoClient[dict[str, Any]] = MongoClient(connect=False)
    document = create_app(client["barflow"], "postgresql://").openapi()
    client.close()
    schemas = document["components"]["schemas"]
    known = [name for name in schemas if name not in ("HTTPValidationError", "ValidationError")]
    paths = [
        _operation(path, verb, operation, known)
        for path, operations in document["paths"].items()
        for verb, operation in operations.items()
    ]
    bodies = [
        f"### {name}\n\n{prose(schemas[name].get('description'))}\n\n{fields(schemas[name], known)}"
        for name in sorted(known)
    ]
    return page(
        "Page API",
        f"{document['info']['description']} `GET /api/openapi.json` returns the OpenAPI document. "
        "[The page](../dashboard.md#security) describes the login.",
        "## Requests",
        *paths,
        "## Bodies",
        *bodies,
    )


def _operation(path: str, verb: str, operation: Mapping[str, Any], known: Sequence[str]) -> str:
    parts = [f"### {verb.upper()} {path}", f"{operation['summary']}."]
    if "requestBody" in operation:
        (body,) = operation["requestBody"]["content"].values()
        parts.append(f"Body: {type_of(body['schema'], known)}")
    if operation.get("parameters"):
        rows = (
            (f"`{it['name']}`", it["in"], type_of(it["schema"], known), _given(it), meaning(it))
            for it in operation["parameters"]
        )
        parts.append(table(("parameter", "in", "type", "default", "meaning"), rows))
    answers = operation["responses"].items()
    parts.append(
        table(("status", "body", "meaning"), ((it, _body(answer, known), _about(answer)) for it, answer in answers))
    )
    return "\n\n".join(part.strip() for part in parts)


def _given(parameter: Mapping[str, Any]) -> str:
    if parameter["required"]:
        return "required"
    default = parameter["schema"].get("default")
    return "" if default is None else f"`{default}`"


def _about(answer: Mapping[str, Any]) -> str:
    # The framework's own words say nothing of the answer.
    frameworks = {"Successful Response": "Success", "Validation Error": "A parameter or the body is invalid"}
    return frameworks.get(answer["description"], meaning(answer))


def _body(answer: Mapping[str, Any], known: Sequence[str]) -> str:
    contents = answer.get("content", {})
    return ", ".join(
        type_of(body["schema"], known) if "$ref" in body.get("schema", {}) else "server-sent events"
        for body in contents.values()
    )


def records() -> list[tuple[Path, dict[str, str]]]:
    """Return the decision records in order, each with its number, title, date and status.

    Raises:
        ValueError: A record does not begin with its title, date and status.
    """
    found = []
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        head = RECORD.match(path.read_text())
        if head is None:
            raise ValueError(f"{path}: the record must begin with '# N. Title' and 'Date: YYYY-MM-DD · Status: …'")
        found.append((path, head.groupdict()))
    return found


def decisions() -> str:
    """Return the list of the decision records."""
    rows = [
        (it["number"], f"[{it['title']}]({path.name})", f"<time>{it['date']}</time>", it["status"])
        for path, it in records()
    ]
    return page(
        "Decisions",
        "Each record describes one decision: its context, the decision and its consequences.",
        table(("number", "decision", "date", "status"), rows),
    )


def python_api() -> str:
    """Return the page of the public functions of the package, with their arguments and errors."""
    names = [name for name in barflow.__all__ if callable(getattr(barflow, name))]
    return page(
        "Python API",
        "`import barflow` gives these functions. They read the Parquet archive and need no database and no API key. "
        "[Semantic versioning](https://semver.org) covers their names, arguments, columns and types: a release that "
        "changes one of them in an incompatible way raises the major version, and before 1.0 the minor one. "
        "[Research](../research.md) shows them at work.",
        *(_function(f"barflow.{name}", getattr(barflow, name)) for name in names),
    )


def _parameter(item: inspect.Parameter) -> str:
    default = "" if item.default is item.empty else f" = {item.default!r}"
    return f"{item.name}: {item.annotation}{default}"


def _function(name: str, function: Callable[..., Any]) -> str:
    text, *sections = re.split(r"\n\n(Args|Raises):\n", inspect.getdoc(function) or "")
    found = inspect.signature(function)
    lines = [f"    {item}," for item in map(_parameter, found.parameters.values())]
    keywords = [item.kind is item.KEYWORD_ONLY for item in found.parameters.values()]
    if True in keywords:
        lines.insert(keywords.index(True), "    *,")
    parts = [f"## {name}", code(f"{name}(", *lines, f") -> {found.return_annotation}"), prose(text)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        rows = re.findall(r"^    (\w+): (.+?)(?=^    \w|\Z)", body, re.MULTILINE | re.DOTALL)
        head = "argument" if title == "Args" else "error"
        parts.append(
            table((head, "meaning"), ((f"`{key}`", prose(meaning).replace("\n", " ")) for key, meaning in rows))
        )
    return "\n\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "decisions/index.md": decisions,
    "reference/commands.md": commands,
    "reference/settings.md": settings,
    "reference/environments.md": environments,
    "reference/python.md": python_api,
    "reference/tables.md": tables,
    "reference/reason-codes.md": reason_codes,
    "reference/message.md": message,
    "reference/api.md": api,
    "reference/outputs.md": outputs,
    "reference/make.md": make_targets,
}


def _first(command: Any) -> str:
    return prose(command.help).split("\n\n")[0].replace("\n", " ")


def _kind(option: Any) -> str:
    """Return the type of an option's value in words, with its bounds."""
    words = {str: "text", Path: "path", int: "integer", float: "number"}
    bounds = (("from", option.min), ("to", option.max))
    return words[option.type_descriptor.annotation] + "".join(
        f" {word} {bound:g}" for word, bound in bounds if bound is not None
    )
