"""Does the EMR bootstrap install what the lock names, and nothing that differs from it?

The script runs as it is; `aws` and `sudo` are emulators, the packages a wheel made here.
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
EMULATORS = {
    "aws": '#!/bin/bash\n[ "$1 $2" = "s3 cp" ] && cp "$BUCKET/${4#s3://code/}" "$5"\n',
    "sudo": '#!/bin/bash\nexec "$@"\n',
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's Python 3.11 and commands, in a folder."""
    folder = tmp_path_factory.mktemp("node")
    venv.create(folder, with_pip=True, symlinks=True)
    for name, text in EMULATORS.items():
        command = folder / "bin" / name
        command.write_text(text)
        command.chmod(0o755)
    return folder


def publish(bucket: Path, content: str, locked: str | None) -> None:
    """Puts a zip of wheels into the bucket: a wheel of this content, and a lock that expects some content, or any."""
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
    """Runs the script on the node. ``index``: the package index that its pip knows of."""
    environment = {"PATH": f"{node}/bin:{os.environ['PATH']}", "BUCKET": str(bucket), "PIP_CONFIG_FILE": os.devnull}
    environment["PIP_INDEX_URL"] = index
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)


def installed(node: Path) -> str:
    code = "import tiny; print(tiny.content)"
    return subprocess.run([node / "bin" / "python", "-c", code], capture_output=True, text=True).stdout.strip()


def test_it_installs_out_of_the_bucket_alone(node: Path, tmp_path: Path) -> None:
    publish(tmp_path / "bucket", "as locked", locked="as locked")
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.setblocking(False)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        done = bootstrap(node, tmp_path / "bucket", "s3://code/emr.gluewheels.zip", index=url)
        assert done.returncode == 0, done.stderr
        assert installed(node) == "as locked"
        with pytest.raises(BlockingIOError):
            index.accept()  # nobody asked


@pytest.mark.parametrize(
    ("locked", "said"),
    [("as locked", "DO NOT MATCH THE HASHES"), (None, "Hashes are required in --require-hashes mode")],
)
def test_a_wheel_that_the_lock_does_not_vouch_for_ends_the_bootstrap(
    node: Path, tmp_path: Path, locked: str | None, said: str
) -> None:
    subprocess.run([node / "bin" / "python", "-m", "pip", "uninstall", "-q", "-y", "tiny"], check=True)
    publish(tmp_path / "bucket", "tampered with", locked)
    done = bootstrap(node, tmp_path / "bucket", "s3://code/emr.gluewheels.zip")
    assert done.returncode != 0
    assert said in done.stderr
    assert installed(node) == ""


@pytest.mark.parametrize("arguments", [(), ("s3://code/absent.zip",)])
def test_a_bootstrap_without_its_packages_fails(node: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "bucket").mkdir()
    assert bootstrap(node, tmp_path / "bucket", *arguments).returncode != 0


def test_it_is_run_by_the_python_that_the_steps_run_on() -> None:
    assert f"python={PYTHON}\n" in SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
