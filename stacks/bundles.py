"""The recipes of everything that a deployment publishes: one bundle per function, and those of the code bucket.

A bundle is named by its content (sources, pinned requirements, platform). So equal content is one asset, and a rollback
finds the old one. uv builds a bundle without Docker into build/bundles, once per content.
`python -m stacks.bundles` builds all of them, so that synthesis needs no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from config import versions
from stacks.byte_code import INGEST_IMPORTS, ByteCodeError, compile_modules, compiler
from stacks.trimming import UNUSED, trim
from stacks.zip_files import EXCLUDED, Wheels, ZipFile, ZippedPackage, published_files

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "bundles"
OWN_LICENCE = {"LICENSE": "LICENSE", "NOTICE": "NOTICE"}
# httpx2, which sends lineage, looks up its version when it is imported.
READ_METADATA = "httpx2-*.dist-info/METADATA"
LICENCES = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*")


class BundleError(RuntimeError):
    """A bundle cannot be built."""


@dataclass(frozen=True)
class Bundle:
    """The recipe of a bundle.

    ``files`` maps a path in the bundle to a file or folder of the repository, ``zip_files`` to a file that is made.
    ``requirements`` is a lock file with hashes, whose packages are installed into the bundle. ``byte_code`` names the
    packages and modules that the bundle has compiled, too.
    """

    name: str
    files: Mapping[str, str]
    zip_files: Mapping[str, ZipFile] = field(default_factory=dict)
    requirements: str | None = None
    byte_code: tuple[str, ...] = ()
    platform: str = versions.LAMBDA_PLATFORM
    python: str = versions.LAMBDA_PYTHON
    root: Path = field(default=ROOT)

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of everything that decides the content."""
        rules = self.requirements and (self.platform, self.python, UNUSED, READ_METADATA)
        digest = hashlib.sha256(f"3 {rules}".encode())
        for path, source in sorted(self._sources()):
            digest.update(f"\0{path}\0{hashlib.sha256(source.read_bytes()).hexdigest()}".encode())
        for path, zip_file in sorted(self.zip_files.items()):
            digest.update(f"\0{path}\0{zip_file.digest}".encode())
        if self.requirements:
            digest.update((self.root / self.requirements).read_bytes())
        if self.byte_code:
            digest.update(f"\0{compiler()} {self.byte_code}".encode())
        return digest.hexdigest()

    @cached_property
    def paths(self) -> frozenset[str]:
        """The paths in the bundle, without those of installed packages."""
        return frozenset([*(path for path, _ in self._sources()), *self.zip_files])

    def _sources(self) -> Iterator[tuple[str, Path]]:
        for target, name in self.files.items():
            source = self.root / name
            if source.is_file():
                yield target, source
                continue
            if not source.is_dir():
                raise BundleError(f"bundle {self.name}: {name} does not exist")
            for path in published_files(source):
                yield str(Path(target) / path.relative_to(source)), path

    def build(self) -> Path:
        """Return the folder of the bundle. Build it unless the cache has this content.

        Raises:
            BundleError: A file does not exist, uv cannot install the packages, or a module cannot be compiled.
        """
        built = CACHE / f"{self.name}-{self.digest[:16]}"
        if built.is_dir():
            return built
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            unfinished = Path(temporary) / "bundle"
            unfinished.mkdir()
            if self.requirements:
                self._install(self.requirements, unfinished)
            for path, source in self._sources():
                target = unfinished / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            for path, zip_file in self.zip_files.items():
                zip_file.write(unfinished / path)
            if self.byte_code:
                try:
                    compile_modules(unfinished, self.python, self.byte_code)
                except ByteCodeError as error:
                    raise BundleError(f"bundle {self.name}: {error}") from None
            try:
                unfinished.rename(built)
            except OSError:
                if not built.is_dir():  # else another process has built the same content
                    raise
        return built

    def _install(self, requirements: str, target: Path) -> None:
        command = [
            str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
            "--target", str(target), "--python-platform", self.platform, "--python-version", self.python,
            "--only-binary", ":all:", "--requirements", str(self.root / requirements),
        ]  # fmt: skip
        # uv's cache is enough when the lock has not changed. Then the build needs no network.
        done = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
        if done.returncode:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BundleError(
                f"bundle {self.name}: cannot install the packages of {requirements}: {done.stderr.strip()[-500:]}. "
                "Check the connection to the package index, then run `make setup`."
            )
        for package in list(target.glob("*.dist-info")):
            kept = target / "licenses" / package.name.removesuffix(".dist-info")
            texts = [path for pattern in LICENCES for path in package.rglob(pattern) if path.is_file()]
            # A wheel without the text names its licence in its metadata.
            for path in texts or [package / "METADATA"]:
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept / path.relative_to(package).as_posix().replace("/", "-"))
        metadata = {path: path.read_bytes() for path in target.glob(READ_METADATA)}
        for pattern in EXCLUDED:
            for path in list(target.rglob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        trim(target)
        for path, content in metadata.items():
            path.parent.mkdir()
            path.write_bytes(content)


MIGRATE = Bundle(
    name="migrate",
    files={"handler.py": "lambda/migrate/handler.py", "barflow": "barflow", "sql": "sql", **OWN_LICENCE},
    requirements="lambda/migrate/requirements.txt",
)
INGEST = Bundle(
    name="ingest",
    files={
        "handler.py": "lambda/ingest/handler.py",
        "barflow": "barflow",
        **OWN_LICENCE,
    },
    requirements="lambda/ingest/requirements.txt",
    byte_code=INGEST_IMPORTS,
)
CERTIFICATE = Bundle(
    name="certificate",
    files={"handler.py": "lambda/certificate/handler.py", **OWN_LICENCE},
    requirements="lambda/certificate/requirements.txt",
)
VISUAL_JOB = Bundle(
    name="visual-job",
    files={"handler.py": "lambda/visual_job/handler.py", "visual_job.json": "glue/visual_job.json", **OWN_LICENCE},
)
NOTIFY = Bundle(
    name="notify",
    files={"handler.py": "lambda/notify/handler.py", "barflow/text.py": "barflow/text.py", **OWN_LICENCE},
    requirements="lambda/notify/requirements.txt",
)
# The programs in the code bucket. The function that publishes them carries them.
LIBRARY = "barflow.zip"
CHARTS = Path("node_modules/lightweight-charts/dist/lightweight-charts.standalone.production.mjs")
RELEASE = Bundle(
    name="publish",
    files={
        "handler.py": "lambda/publish/handler.py",
        "release/spark": "spark",
        "release/glue": "glue",
        "release/sql": "sql",
        "release/orchestration": "orchestration",
        "release/barflow": "barflow",
        "release/dashboard": "dashboard",
        f"release/dashboard/static/vendor/{CHARTS.name}": str(CHARTS),
        f"release/dashboard/static/vendor/{CHARTS.name}.LICENSE": "node_modules/lightweight-charts/LICENSE",
        **OWN_LICENCE,
        **{f"release/{name}": name for name in OWN_LICENCE},
    },
    zip_files={f"release/{LIBRARY}": ZippedPackage("barflow")},
)
# Packages are apart from the programs: they are large and seldom change. Glue requires the suffix gluewheels.zip.
EMR_PACKAGES, GLUE_PACKAGES = "emr.gluewheels.zip", "glue.gluewheels.zip"
PACKAGES = Bundle(
    name="publish-packages",
    files={"handler.py": "lambda/publish/handler.py", **OWN_LICENCE},
    zip_files={
        f"release/{EMR_PACKAGES}": Wheels("spark/requirements.txt", versions.EMR_PLATFORM),
        f"release/{GLUE_PACKAGES}": Wheels("glue/requirements.txt", versions.GLUE_PLATFORM),
    },
)
BUNDLES = (MIGRATE, INGEST, CERTIFICATE, VISUAL_JOB, NOTIFY, RELEASE, PACKAGES)


def main() -> None:
    """Build every bundle, and print its size."""
    for bundle in BUNDLES:
        built = bundle.build()
        size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
        print(f"{os.path.relpath(built, ROOT)}: {size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
