"""Files of a bundle that are made and not copied: the library as a zip, wheels for machines that have no index.

Each knows a digest of all that decides its content, and how to write itself.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from config import versions

ROOT = Path(__file__).parents[1]
# Files that a program does not need to run, and files that differ from one build to the next.
LEFT_OUT = ("__pycache__", "tests", "test", "*.dist-info", "*.pyc", "*.pyi", "bin", "*.lock", "py.typed")


def published_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that are published: code and data, without those in ``LEFT_OUT``."""
    for path in folder.rglob("*"):
        parts = [Path(part) for part in path.relative_to(folder).parts]
        if path.is_file() and not any(part.match(pattern) for part in parts for pattern in LEFT_OUT):
            yield path


class Archive(Protocol):
    """A file that can be made."""

    @property
    def digest(self) -> str: ...

    def write(self, target: Path) -> None: ...


@dataclass(frozen=True)
class ZippedPackage:
    """A Python package of the repository with its data, as Spark's --py-files and Glue's --extra-py-files take it."""

    package: str

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for place, path in self._files():
            digest.update(f"\0{place}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return digest.hexdigest()

    def write(self, target: Path) -> None:
        _zip(target, self._files())

    def _files(self) -> list[tuple[str, Path]]:
        found = sorted(published_files(ROOT / self.package))
        return [(path.relative_to(ROOT).as_posix(), path) for path in found]


@dataclass(frozen=True)
class Wheels:
    """The wheels of a lock (with hashes) for a platform, unopened, and the lock, in a folder ``wheels``."""

    lock: str
    platform: str
    python: str = versions.SPARK_PYTHON

    @property
    def digest(self) -> str:
        lock = (ROOT / self.lock).read_bytes()
        return hashlib.sha256(f"{self.platform} {self.python} ".encode() + lock).hexdigest()

    def write(self, target: Path) -> None:
        """Fetches them from the package index by pip, since uv has no command for that. Raises RuntimeError."""
        architecture, libc = self.platform.split("-", 1)
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
                "--only-binary", ":all:", "--dest", folder, "--python-version", self.python,
                "--platform", f"{libc}_{architecture}", "--platform", f"manylinux2014_{architecture}",
                "--requirement", str(ROOT / self.lock),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the wheels of {self.lock} could not be fetched: {done.stderr.strip()[-500:]}")
            wheels = [(f"wheels/{path.name}", path) for path in sorted(Path(folder).iterdir())]
            _zip(target, [("wheels/requirements.txt", ROOT / self.lock), *wheels])


def _zip(target: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Zips files under their places; equal content gives an equal zip, since no time is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as made:
        for place, path in files:
            made.writestr(zipfile.ZipInfo(place), path.read_bytes(), zipfile.ZIP_DEFLATED)
