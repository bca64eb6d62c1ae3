"""Which settings does a program read? Found in its source, so that what a stack provides can be held against it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from barflow.settings import Settings

ROOT = Path(__file__).parents[2]


def settings_read(source: str, *functions: str) -> set[str]:
    """The fields of Settings that a file of the repository reads, or only these functions in it."""
    tree = ast.parse((ROOT / source).read_text())
    parts: list[ast.AST] = [tree]
    if functions:
        parts = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in functions]
        assert {part.name for part in parts if isinstance(part, ast.FunctionDef)} == set(functions)
    found = {name for part in parts for name in _names(part)}
    return found & set(Settings.model_fields)


def _names(part: ast.AST) -> Iterator[str]:
    for node in ast.walk(part):
        if isinstance(node, ast.Attribute) and _is_settings(node.value):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "require":
            yield from (str(item.value) for item in node.args if isinstance(item, ast.Constant))


def _is_settings(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "settings") or (
        isinstance(node, ast.Attribute) and node.attr == "settings"
    )


def variable(field: str) -> str:
    """The environment variable of a field of Settings."""
    return "TWELVEDATA_API_KEY" if field == "twelvedata_api_key" else f"BARFLOW_{field.upper()}"


def third_party_imports(*sources: Path) -> set[str]:
    """The top-level names that files import at any place, less those of the standard library and the project."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"barflow"}
