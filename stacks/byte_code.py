"""Byte code of the modules of a bundle, so that a cold start compiles none of them.

Lambda cannot write next to a function's modules. Python would compile all that a function imports at each cold start.
The byte code is unchecked (PEP 552): Python does not compare it with its source, whose time a deployment changes.
Byte code of another version of Python is ignored, and the source is compiled as without it.
"""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the ingest function imports at its start. The rest, such as apprise, is imported where a rule needs it.
INGEST_IMPORTS = (
    "annotated_types", "barflow", "bson", "certifi", "charset_normalizer", "dotenv", "handler.py", "idna", "orjson",
    "pydantic", "pydantic_core", "pydantic_settings", "pymongo", "requests", "tenacity", "typing_extensions.py",
    "typing_inspection", "urllib3",
)  # fmt: skip


class ByteCodeError(RuntimeError):
    """The modules of a bundle cannot be compiled."""


def compiler() -> str:
    """Return the name and version of what compiles for a Python that this machine does not have."""
    lock = json.loads((ROOT / "package-lock.json").read_text())
    return f"pyodide {lock['packages']['node_modules/pyodide']['version']}"


def compile_modules(bundle: Path, python: str, names: Iterable[str]) -> None:
    """Write the byte code of the packages and modules of these names for a version of Python, such as 3.13.

    Raises ByteCodeError if a module is not valid Python, or Pyodide is not installed or has another version.
    """
    found = [path for name in names for path in (bundle / name).rglob("*.py") if not path.name.startswith(".")]
    found += [bundle / name for name in names if name.endswith(".py")]
    paths = sorted({str(path.relative_to(bundle)) for path in found})
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        for path in paths:
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(bundle / path), dfile=path, doraise=True, invalidation_mode=mode)
        return
    node = Path(sys.executable).with_name("node")
    command = [str(node), str(ROOT / "stacks" / "byte_code.mjs"), str(bundle), python, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ByteCodeError(f"{done.stderr.strip()[-500:]}. Correct it, then run `make setup`.")
