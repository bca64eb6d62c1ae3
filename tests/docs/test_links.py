"""Everything that the documentation names exists: paths, modules, make targets, commands and their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import barflow
from barflow.cli.main import app
from barflow.lake.actions import KINDS_KEY
from tools.reference_pages import PAGES, TARGET, walk

ROOT = Path(__file__).parents[2]
DOCS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```(?!mermaid).*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MERMAID = re.compile(r"^ *```mermaid.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"(?<![\w./-])make (?:-\w+ )*([a-z][a-z-]*)")
COMMAND = re.compile(r"(?<![\w./-])(?:\.venv/bin/)?barflow((?: [a-z][a-z-]*)+)([^\n]*)")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
PATH = re.compile(r"(?<![\w./:$-])[\w.*-]+(?:/[\w.*-]+)*/?(?![\w/])")
MODULE = re.compile(r"(?<![\w./-])(?:barflow|benchmarks|config|dashboard|emulators|local|rehearsal|stacks)(?:\.\w+)+")
# A name in capitals stands for a name that the reader chooses.
PLACEHOLDER = re.compile(r"[A-Z]{3}")
BUILT = {"build", "node_modules", "dist", "cdk.out"}
FILES_OF_A_DEPLOYMENT = ("barflow.zip",)
# Functions of the package, and the key in the metadata of a file of the archive.
PUBLIC_NAMES = (*(f"barflow.{name}" for name in barflow.__all__), KINDS_KEY.decode())


def code(path: Path) -> Iterator[str]:
    """Yield the code of a document: each line of its blocks, and its code spans."""
    text = MERMAID.sub("", path.read_text())
    for block in FENCE.findall(text):
        yield from (line.split("  #")[0] for line in block.splitlines())
    yield from SPAN.findall(FENCE.sub("", text))


@cache
def commands() -> dict[str, Any]:
    return dict(walk(typer.main.get_command(app)))


@cache
def rooms() -> frozenset[str]:
    """Return the folders of the repository that are not built."""
    return frozenset(it.name for it in ROOT.iterdir() if it.is_dir() and it.name not in BUILT and it.name[0] != ".")


def names(path: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    return [found for text in code(path) for found in pattern.finditer(text)]


def is_there(name: str) -> bool:
    return any(ROOT.glob(name.rstrip("/")))


def is_module(name: str) -> bool:
    """Return whether the name is a module, or a name in one."""
    place = ROOT / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").exists():
        return True
    outer, inner = name.rsplit(".", 1)
    if outer == barflow.__name__ and inner in barflow.__all__:
        return True
    source = (ROOT / outer.replace(".", "/")).with_suffix(".py")
    return (
        source.exists() and re.search(rf"^\s*(?:class |def )?{inner}\b", source.read_text(), re.MULTILINE) is not None
    )


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_every_link_leads_to_a_file(path: Path) -> None:
    generated = {ROOT / "docs" / uri for uri in PAGES}
    targets = {name: (path.parent / name).resolve() for name in LINK.findall(path.read_text())}
    assert [name for name, target in targets.items() if not target.exists() and target not in generated] == []


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_every_path_and_module_exists(path: Path) -> None:
    paths = {found[0] for found in names(path, PATH) if "/" in found[0] and not PLACEHOLDER.search(found[0])}
    missing = [it for it in paths if it.split("/")[0] in rooms() and not is_there(it)]
    modules = {found[0] for found in names(path, MODULE)} - {*FILES_OF_A_DEPLOYMENT, *PUBLIC_NAMES}
    assert (missing, [it for it in modules if not is_module(it)]) == ([], [])


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_every_make_target_exists(path: Path) -> None:
    targets = {found["name"] for found in TARGET.finditer((ROOT / "Makefile").read_text())}
    assert {found[1] for found in names(path, MAKE)} <= targets


@pytest.mark.parametrize("path", DOCS, ids=shown)
def test_every_command_and_option_exists(path: Path) -> None:
    wrong = []
    for found in names(path, COMMAND):
        words = found[1].split()
        known = [f"barflow {' '.join(words[:size])}" for size in (2, 1)]
        command = next((commands()[name] for name in known if name in commands()), None)
        is_group = any(name.startswith(f"{known[1]} ") for name in commands())
        if command is None:
            wrong += [] if is_group and len(words) == 1 else [found[0]]
            continue
        options = {name for option in command.params for name in [*option.opts, *option.secondary_opts]} | {"--help"}
        wrong += [f"{known[1]} {name}" for name in OPTION.findall(found[2]) if name not in options]
    assert wrong == []


def test_the_documents_name_things_of_every_kind() -> None:
    """The patterns above must find what they are for."""
    found = {kind: sum(len(names(path, kind)) for path in DOCS) for kind in (MAKE, COMMAND, PATH, MODULE)}
    assert all(count > least for count, least in zip(found.values(), (30, 40, 100, 5), strict=True)), found
