"""What is published, and how is it built? One recipe for each function, and one for the code bucket.

A bundle is named by its content (sources, pinned requirements, platform), so equal content is one asset and a
rollback finds the old one. It is built without Docker, by uv, into build/bundles, once per content.
`python -m stacks.bundles` builds all of them, so that synthesizing needs no network.
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
from stacks.archives import LEFT_OUT, Archive, Wheels, ZippedPackage, published_files

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "bundles"


class BundleError(RuntimeError):
    """A bundle could not be built."""


@dataclass(frozen=True)
class Bundle:
    """``files``: place in the bundle → file or folder of the repository; ``archives``: place → file to make.

    ``requirements``: a lock with hashes, installed into the bundle.
    """

    name: str
    files: Mapping[str, str]
    archives: Mapping[str, Archive] = field(default_factory=dict)
    requirements: str | None = None
    platform: str = versions.LAMBDA_PLATFORM
    python: str = versions.LAMBDA_PYTHON
    root: Path = field(default=ROOT)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides the content, in 64 hexadecimal digits."""
        digest = hashlib.sha256(f"1 {self.requirements and (self.platform, self.python)}".encode())
        for place, source in sorted(self._sources()):
            digest.update(f"\0{place}\0{hashlib.sha256(source.read_bytes()).hexdigest()}".encode())
        for place, archive in sorted(self.archives.items()):
            digest.update(f"\0{place}\0{archive.digest}".encode())
        if self.requirements:
            digest.update((self.root / self.requirements).read_bytes())
        return digest.hexdigest()

    @cached_property
    def places(self) -> frozenset[str]:
        """The files of the bundle, less those of installed packages."""
        return frozenset([*(place for place, _ in self._sources()), *self.archives])

    def _sources(self) -> Iterator[tuple[str, Path]]:
        for place, name in self.files.items():
            source = self.root / name
            if source.is_file():
                yield place, source
                continue
            if not source.is_dir():
                raise BundleError(f"bundle {self.name}: {name} is not there")
            for path in published_files(source):
                yield str(Path(place) / path.relative_to(source)), path

    def build(self) -> Path:
        """The folder of the built bundle, from the cache when this content was built before. Raises BundleError."""
        built = CACHE / f"{self.name}-{self.digest[:16]}"
        if built.is_dir():
            return built
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            unfinished = Path(temporary) / "bundle"
            unfinished.mkdir()
            if self.requirements:
                self._install(self.requirements, unfinished)
            for place, source in self._sources():
                target = unfinished / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            for place, archive in self.archives.items():
                archive.write(unfinished / place)
            try:
                unfinished.rename(built)
            except OSError:
                if not built.is_dir():  # else another process was quicker, with the same content
                    raise
        return built

    def _install(self, requirements: str, target: Path) -> None:
        command = [
            str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
            "--target", str(target), "--python-platform", self.platform, "--python-version", self.python,
            "--only-binary", ":all:", "--requirements", str(self.root / requirements),
        ]  # fmt: skip
        # What uv has at hand is enough when the lock did not change; only then may the network be away.
        done = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
        if done.returncode:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BundleError(
                f"bundle {self.name}: the packages of {requirements} could not be installed: "
                f"{done.stderr.strip()[-500:]}. The first build of a lock needs the package index; run `make setup`."
            )
        for pattern in LEFT_OUT:
            for path in list(target.rglob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


MIGRATE = Bundle(
    name="migrate",
    files={"handler.py": "lambda/migrate/handler.py", "barflow": "barflow", "sql": "sql"},
    requirements="lambda/migrate/requirements.txt",
)
INGEST = Bundle(
    name="ingest",
    files={
        "handler.py": "lambda/ingest/handler.py",
        "barflow": "barflow",
    },
    requirements="lambda/ingest/requirements.txt",
)
CERTIFICATE = Bundle(
    name="certificate",
    files={"handler.py": "lambda/certificate/handler.py"},
    requirements="lambda/certificate/requirements.txt",
)
VISUAL_JOB = Bundle(
    name="visual-job",
    files={"handler.py": "lambda/visual_job/handler.py", "visual_job.json": "glue/visual_job.json"},
)
NOTIFY = Bundle(
    name="notify",
    files={"handler.py": "lambda/notify/handler.py"},
    requirements="lambda/notify/requirements.txt",
)
# What the code bucket holds, and the function that puts it there: it carries the files itself.
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
    },
    archives={f"release/{LIBRARY}": ZippedPackage("barflow")},
)
# Apart from the programs, since they are large and change seldom. By its name's end Glue knows a zip of wheels.
EMR_PACKAGES, GLUE_PACKAGES = "emr.gluewheels.zip", "glue.gluewheels.zip"
PACKAGES = Bundle(
    name="publish-packages",
    files={"handler.py": "lambda/publish/handler.py"},
    archives={
        f"release/{EMR_PACKAGES}": Wheels("spark/requirements.txt", versions.EMR_PLATFORM),
        f"release/{GLUE_PACKAGES}": Wheels("glue/requirements.txt", versions.GLUE_PLATFORM),
    },
)
BUNDLES = (MIGRATE, INGEST, CERTIFICATE, VISUAL_JOB, NOTIFY, RELEASE, PACKAGES)


def main() -> None:
    for bundle in BUNDLES:
        built = bundle.build()
        size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
        print(f"{os.path.relpath(built, ROOT)}: {size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
