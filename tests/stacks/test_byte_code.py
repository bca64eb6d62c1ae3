"""The ingest function's byte code: of the function's Python, of these sources, and of all that a cold start imports."""

from __future__ import annotations

import _imp
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from stacks import byte_code
from stacks.bundles import BUNDLES, INGEST, Bundle, BundleError
from stacks.byte_code import ByteCodeError, compile_modules
from tests.stacks.test_bundles import HERE

# The magic number of every release of Python 3.13 (Lib/importlib/_bootstrap_external.py), and PEP 552's flags of a
# file that is named by the hash of its source and never compared with it.
MAGIC, UNCHECKED = (3571).to_bytes(2, "little") + b"\r\n", (1).to_bytes(4, "little")
MODULES = """
import sys, types, json
sys.modules["boto3"] = types.ModuleType("boto3")
sys.path[:0] = ["."]
import handler
from pathlib import Path
found = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
here = [spec for spec in found if str(spec.origin).startswith(str(Path.cwd())) and spec.origin.endswith(".py")]
print(json.dumps([spec.name for spec in here if not Path(spec.cached).is_file()]), len(here))
"""


def sources(built: Path) -> dict[Path, Path]:
    """Return the source of each file of byte code."""
    found = built.rglob("*.pyc")
    return {path: path.parent.parent / f"{path.name.split('.')[0]}.py" for path in found}


def test_the_byte_code_is_of_the_functions_python_and_of_the_sources_beside_it() -> None:
    found = sources(INGEST.build())
    assert len(found) > 400
    for path, source in found.items():
        head = path.read_bytes()[:16]
        key = int.from_bytes(MAGIC, "little")
        assert path.suffixes == [".cpython-313", ".pyc"]
        assert head == MAGIC + UNCHECKED + _imp.source_hash(key, source.read_bytes()), path


def test_a_cold_start_compiles_no_module() -> None:
    version = f"3.{sys.version_info.minor}"
    built = replace(INGEST, name="ingest-here", platform=HERE, python=version).build()
    done = subprocess.run([sys.executable, "-I", "-B", "-c", MODULES], cwd=built, capture_output=True, text=True)
    missing, _, count = done.stdout.partition("] ")
    assert (done.stderr, missing) == ("", "[")
    assert int(count) > 300


def test_only_the_ingest_function_has_byte_code() -> None:
    counted = Counter({bundle.name: len(sources(bundle.build())) for bundle in BUNDLES})
    assert [name for name, count in counted.items() if count] == [INGEST.name]


@pytest.mark.parametrize("python", ["3.13", f"3.{sys.version_info.minor}"])
def test_the_same_sources_give_the_same_byte_code(python: str, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        package = tmp_path / name / "one"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('"""A package."""\nimport sys\nNAMES = ("a", "b", sys.version)\n')
        (tmp_path / name / "handler.py").write_text("def f(x):\n    return {x, 1.5, 'text'}\n")
        compile_modules(tmp_path / name, python, ("one", "handler.py"))
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.pyc")})
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_byte_code_of_another_python_leaves_the_source_in_use(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import sys\nprint(sys.version_info.minor)\n")
    compile_modules(tmp_path, "3.13", ["handler.py"])
    command = [sys.executable, "-B", "-c", "import handler"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.version_info.minor}\n"
    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "handler.py")))
    (tmp_path / "__pycache__" / "handler.cpython-313.pyc").rename(compiled)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.version_info.minor}\n", "its magic number is not this Python's"


def test_a_compiler_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("x = 1\n")
    with pytest.raises(ByteCodeError, match=r"pyodide has Python 3\.13, and the functions have 3\.9\. Pin another"):
        compile_modules(tmp_path, "3.9", ["handler.py"])


def test_a_bundle_that_cannot_be_compiled_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stacks.bundles.CACHE", tmp_path / "cache")
    (tmp_path / "handler.py").write_text("def broken(:\n")
    bundle = Bundle("broken", {"handler.py": "handler.py"}, byte_code=("handler.py",), root=tmp_path)
    with pytest.raises(
        BundleError, match=r"(?s)bundle broken: handler\.py cannot be compiled: SyntaxError.*run `make setup`"
    ):
        bundle.build()


def test_the_digest_of_a_bundle_follows_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    before = INGEST.digest
    monkeypatch.setattr(byte_code, "compiler", lambda: "pyodide 0")
    monkeypatch.setattr("stacks.bundles.compiler", lambda: "pyodide 0")
    assert replace(INGEST).digest != before
    assert (
        json.loads((byte_code.ROOT / "package.json").read_text())["devDependencies"]["pyodide"]
        in (byte_code.ROOT / "package-lock.json").read_text()
    )
