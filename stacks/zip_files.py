"""Zip files that a bundle contains: a package of the repository, and wheels for hosts without a package index."""

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
EXCLUDED = ("__pycache__", "tests", "test", "*.dist-info", "*.pyc", "*.pyi", "bin", "*.lock", "py.typed")


def published_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that are published: code and data, without those in ``EXCLUDED``."""
    for path in folder.rglob("*"):
        parts = [Path(part) for part in path.relative_to(folder).parts]
        if path.is_file() and not any(part.match(pattern) for part in parts for pattern in EXCLUDED):
            yield path


class ZipFile(Protocol):
    """A zip file that can be written, and whose digest is known before it is."""

    @property
    def digest(self) -> str:
        """A SHA-256 of everything that decides the content."""

    def write(self, target: Path) -> None:
        """Write the zip file."""


@dataclass(frozen=True)
class ZippedPackage:
    """A Python package of the repository with its data, for Spark's --py-files and Glue's --extra-py-files."""

    package: str

    @property
    def digest(self) -> str:
        """A SHA-256 of the names and contents of its files."""
        digest = hashlib.sha256()
        for name, path in self._files():
            digest.update(f"\0{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return digest.hexdigest()

    def write(self, target: Path) -> None:
        """Write the package as a zip file."""
        _write_zip(target, self._files())

    def _files(self) -> list[tuple[str, Path]]:
        found = sorted(published_files(ROOT / self.package))
        return [(path.relative_to(ROOT).as_posix(), path) for path in found]


@dataclass(frozen=True)
class Wheels:
    """The wheels of a lock file with hashes, for one platform. The zip file has them in ``wheels/``, with the lock."""

    lock: str
    platform: str
    python: str = versions.SPARK_PYTHON

    @property
    def digest(self) -> str:
        """A SHA-256 of the lock, the platform and the Python version."""
        lock = (ROOT / self.lock).read_bytes()
        return hashlib.sha256(f"{self.platform} {self.python} ".encode() + lock).hexdigest()

    def write(self, target: Path) -> None:
        """Download the wheels with pip, because uv has no such command, and write them as a zip file.

        Raises:
            RuntimeError: pip failed.
        """
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
                raise RuntimeError(
                    f"cannot download the wheels of {self.lock}: {done.stderr.strip()[-500:]}. "
                    "Check the connection to the package index, then run `make setup`."
                )
            wheels = [(f"wheels/{path.name}", path) for path in sorted(Path(folder).iterdir())]
            _write_zip(target, [("wheels/requirements.txt", ROOT / self.lock), *wheels])


def _write_zip(target: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Write files under their names. Equal contents give equal zip files, because no timestamp is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as made:
        for name, path in files:
            made.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
