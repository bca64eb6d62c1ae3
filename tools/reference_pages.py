"""The reference pages of the documentation, generated from the code as Markdown.

``PAGES`` maps the path of each page below docs/ to the function that writes it. ``make docs`` calls them through
tools/docs_hooks.py.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter
from pymongo import MongoClient

import barflow
from barflow.cli.main import app
from barflow.market.validation import REASONS
from barflow.settings import Settings
from config.environment import Environment
from dashboard.app import create_app
from stacks.outputs import OUTPUTS
from tools.markdown_text import anchor, code, page, prose, table
from tools.schema_text import default_of, fields, inputs, meaning, type_of
from tools.warehouse_tables import migrated_warehouse, read_tables

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
SCHEMA = ROOT / "docs" / "alert-message.schema.json"
RECORD = re.compile(r"# (?P<number>\d+)\. (?P<title>.+)\n\nDate: (?P<date>\d{4}-\d\d-\d\d) · Status: (?P<status>.+)\n")
TARGET = re.compile(r"^(?P<name>[a-z-]+):.*?## (?P<help>.+)$", re.MULTILINE)
# The theme's switch for a page without headings.
WITHOUT_CONTENTS = "---\nhide:\n  - toc\n---\n\n"


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
    with migrated_warehouse() as connection:
        found = read_tables(connection)
    described: dict[str, str] = {}
    parts = []
    for it in found:
        rows = [(f"`{at.name}`", at.type, "no" if at.required else "yes", at.meaning) for at in it.columns]
        key = ", ".join(f"`{column.name}`" for column in it.columns if column.key_position)
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
