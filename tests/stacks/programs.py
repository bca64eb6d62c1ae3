"""What a program needs: its arguments, the settings that it reads and the packages that it imports."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from barflow.settings import Settings

ROOT = Path(__file__).parents[2]


def program(path: str) -> ModuleType:
    """Return a program of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_read(source: str, *functions: str) -> set[str]:
    """Return the fields of Settings that a file reads, or only these functions of it."""
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
    """Return the environment variable of a field of Settings."""
    return "TWELVEDATA_API_KEY" if field == "twelvedata_api_key" else f"BARFLOW_{field.upper()}"


def third_party_imports(source: str) -> set[str]:
    """Return the packages that a program imports at run time, directly or through modules of barflow."""
    found: set[str] = set()
    for path in _reached(ROOT / source):
        found |= {name.split(".")[0] for name in _imports(path)}
    return found - set(sys.stdlib_module_names) - {"barflow"}


def _reached(start: Path) -> set[Path]:
    """Return the program, and the modules of barflow that it imports at any depth."""
    found, waiting = {start}, [start]
    while waiting:
        names = {name for name in _imports(waiting.pop()) if name.split(".")[0] == "barflow"}
        new = {path for name in names for path in _files(name)} - found
        found |= new
        waiting += new
    return found


def _files(module: str) -> Iterator[Path]:
    """Yield the files that an import of the module runs: its own, and those of the packages that it is in."""
    folder = ROOT
    for part in module.split("."):
        folder /= part
        yield from (path for path in (folder.with_suffix(".py"), folder / "__init__.py") if path.exists())


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, except those for type checking."""
    tree = _WithoutTypeChecking().visit(ast.parse(path.read_text()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class _WithoutTypeChecking(ast.NodeTransformer):
    """Removes the blocks that only a type checker reads."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node
