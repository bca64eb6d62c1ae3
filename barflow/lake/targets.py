"""Where an export goes: a file, or a folder of Parquet files. It appears completely or not at all.

An export is made in a hidden folder beside its target, ``.NAME.part``, and moved into place when it is complete. The
manifest of a file appears last, and a folder contains its own, so a manifest means that the data is there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from barflow.errors import BadInputError, BarflowError, BusyError

Form = Literal["csv", "parquet", "folder"]
# Dataset readers ignore a file whose name starts with an underscore.
FOLDER_MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class Target:
    """Where an export goes: a CSV file, a Parquet file, or a folder of Parquet files. ``given`` is how a user named it.

    ``force`` replaces an export that exists.
    """

    given: str
    path: Path
    form: Form
    force: bool = False

    @classmethod
    def of(cls, given: str, *, force: bool = False) -> Target:
        """Return the target of this name: a folder if it ends in ``/`` or is one, else a .csv or .parquet file.

        Raises BadInputError for another name, and for a target that exists and must not be replaced.
        """
        if "://" in given:
            raise BadInputError(f"--to {given}: an export is written to this machine. Give a file or folder of it")
        # A shell leaves the ~ of --to=~/bars.csv alone. Path raises for an unknown ~user and a loop of links.
        path = Path(os.path.realpath(os.path.expanduser(given)))  # noqa: PTH111
        form: Form
        if given.endswith("/") or path.is_dir():
            form = "folder"
        elif path.suffix in (".csv", ".parquet"):
            form = "csv" if path.suffix == ".csv" else "parquet"
        else:
            raise BadInputError(f"--to {given}: the name must end in .csv, .parquet, or / for a folder")
        target = cls(given, path, form, force)
        target.check()
        return target

    @property
    def manifest(self) -> Path:
        """Return the path of the export's manifest: in its folder, or beside its file."""
        return self.manifest_of(self.path)

    def manifest_of(self, made: Path) -> Path:
        """Return where the manifest of a file or folder is that is made at another path."""
        return made / FOLDER_MANIFEST if self.form == "folder" else made.with_name(f"{made.name}.manifest.json")

    def check(self) -> None:
        """Raise BadInputError if the target exists and must not be replaced."""
        is_folder = self.form == "folder"
        if is_folder and self.path.is_file():
            raise BadInputError(f"--to {self.given}: this is a file, not a folder. Choose another name")
        if (self.path.exists() or self.manifest.exists()) and not self.force:
            there = "folder" if is_folder else "file" if self.path.exists() else f"manifest {self.manifest.name}"
            raise BadInputError(f"--to {self.given}: the {there} exists; pass --force to replace it")
        if is_folder and self.path.exists() and not self.manifest.is_file() and any(self.path.iterdir()):
            raise BadInputError(
                f"--to {self.given}: --force replaces only an export, and this folder has no {FOLDER_MANIFEST}. "
                "Choose another folder"
            )

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Yield the path at which to make the file or folder. Move it and its manifest into place after the block.

        After an error of the block nothing has changed. Raises BusyError while another export to this target runs, and
        BarflowError if nothing can be written.
        """
        work = self.path.with_name(f".{self.path.name}.part")
        made = work / self.path.name
        with self.writing():
            work.mkdir(exist_ok=True)
            lock = os.open(work, os.O_RDONLY)
        try:
            self._lock(lock)
            try:
                with self.writing():
                    self._empty(work)
                    made.mkdir() if self.form == "folder" else None
                yield made
                with self.writing():
                    self._publish(made)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(lock)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError of the block into a BarflowError that names the target."""
        try:
            yield
        except OSError as error:
            raise BarflowError(
                f"could not write {self.given}: {error.strerror or error}. Nothing was changed. Free space, fix the "
                "permissions, or choose another place with --to."
            ) from None

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another export writes {self.given} now. Nothing was changed. Wait for it, or choose another place "
                "with --to."
            ) from None

    def _empty(self, work: Path) -> None:
        """Remove what a killed export left. Put the folder back that it was about to replace."""
        replaced = self._replaced(work)
        if replaced.exists() and not self.path.exists():
            replaced.rename(self.path)
        for item in work.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()

    def _replaced(self, work: Path) -> Path:
        """Return where the folder is that is about to be replaced. No export is made there."""
        return work / f"{self.path.name}.replaced"

    def _publish(self, made: Path) -> None:
        self.check()  # the target may have appeared meanwhile
        if self.form == "folder":
            if self.path.exists():
                self.path.rename(self._replaced(made.parent))
            made.rename(self.path)
            return
        self.manifest.unlink(missing_ok=True)
        made.replace(self.path)
        self.manifest_of(made).replace(self.manifest)
