"""The EMR bootstrap installs exactly the packages of the lock.

The script runs unchanged. `aws` and `sudo` are fakes, and the test builds the wheel.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from config import versions

SCRIPT = Path(__file__).parents[2] / "spark" / "requirements.sh"
PYTHON = f"python{versions.SPARK_PYTHON}"
WHEEL = "tiny-1.0-py3-none-any.whl"
FAKES = {
    "aws": '#!/bin/bash\n[ "$1 $2" = "s3 cp" ] && cp "$BUCKET/${4#s3://code/}" "$5"\n',
    "sudo": '#!/bin/bash\nexec "$@"\n',
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a node's Python 3.11 and its commands."""
    folder = tmp_path_factory.mktemp("node")
    venv.create(folder, with_pip=True, symlinks=True)
    for name, text in FAKES.items():
        command = folder / "bin" / name
        command.write_text(text)
        command.chmod(0o755)
    return folder


def publish(bucket: Path, content: str, locked: str | None) -> None:
    """Publish a zip with a wheel of this content, and with a lock for ``locked`` content (None: without hashes)."""
    bucket.mkdir()
    made = {name: wheel(bucket / name, name) for name in {content, locked or content}}
    with zipfile.ZipFile(bucket / "emr.gluewheels.zip", "w") as packages:
        packages.writestr(f"wheels/{WHEEL}", made[content])
        digest = f" --hash=sha256:{hashlib.sha256(made[locked]).hexdigest()}" if locked else ""
        packages.writestr("wheels/requirements.txt", f"tiny==1.0{digest}\n")


def wheel(path: Path, content: str) -> bytes:
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("tiny.py", f"content = {content!r}\n")
        files.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        files.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr("tiny-1.0.dist-info/RECORD", "")
    return path.read_bytes()


def bootstrap(node: Path, bucket: Path, *arguments: str, index: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script on the node. ``index`` is the package index of its pip."""
    environment = {"PATH": f"{node}/bin:{os.environ['PATH']}", "BUCKET": str(bucket), "PIP_CONFIG_FILE": os.devnull}
    environment["PIP_INDEX_URL"] = index
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)


def installed(node: Path) -> str:
    code = "import tiny; print(tiny.content)"
    return subprocess.run([node / "bin" / "python", "-c", code], capture_output=True, text=True).stdout.strip()


def test_it_installs_from_the_bucket_alone(node: Path, tmp_path: Path) -> None:
    publish(tmp_path / "bucket", "as locked", locked="as locked")
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.setblocking(False)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        done = bootstrap(node, tmp_path / "bucket", "s3://code/emr.gluewheels.zip", index=url)
        assert done.returncode == 0, done.stderr
        assert installed(node) == "as locked"
        with pytest.raises(BlockingIOError):
            index.accept()  # pip did not contact the index


@pytest.mark.parametrize(
    ("locked", "message"),
    [("as locked", "DO NOT MATCH THE HASHES"), (None, "Hashes are required in --require-hashes mode")],
)
def test_a_wheel_that_differs_from_the_lock_fails_the_bootstrap(
    node: Path, tmp_path: Path, locked: str | None, message: str
) -> None:
    subprocess.run([node / "bin" / "python", "-m", "pip", "uninstall", "-q", "-y", "tiny"], check=True)
    publish(tmp_path / "bucket", "tampered with", locked)
    done = bootstrap(node, tmp_path / "bucket", "s3://code/emr.gluewheels.zip")
    assert done.returncode != 0
    assert message in done.stderr
    assert installed(node) == ""


@pytest.mark.parametrize("arguments", [(), ("s3://code/absent.zip",)])
def test_a_bootstrap_without_its_packages_fails(node: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "bucket").mkdir()
    assert bootstrap(node, tmp_path / "bucket", *arguments).returncode != 0


def test_it_uses_the_python_of_the_steps() -> None:
    assert f"python={PYTHON}\n" in SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
