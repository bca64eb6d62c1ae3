"""The demo passes on a machine with its own Spark, PostgreSQL settings, encoding and odd folder names."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from commands import barflow

from local.postgres import PLAIN_FOLDER, SHORT_FOLDER, _socket_folder

SPECIAL = "a b [x]{y}*?%"
# Each of these variables changes or breaks Spark, Java, Python, PostgreSQL or its client when a child inherits it.
FOREIGN = {
    "SPARK_HOME": "/nonexistent/spark",
    "SPARK_CONF_DIR": "/nonexistent/conf",
    "HADOOP_CONF_DIR": "/nonexistent/hadoop",
    "PYSPARK_PYTHON": "/nonexistent/python",
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_SUBMIT_ARGS": "--master spark://nowhere.invalid:7077 pyspark-shell",
    "PYSPARK_GATEWAY_PORT": "1",
    "PYSPARK_GATEWAY_SECRET": "none",
    "MASTER": "yarn",
    "DEPLOY_MODE": "cluster",
    "JAVA_HOME": "/nonexistent/java",
    "JAVA_TOOL_OPTIONS": "-javaagent:/nonexistent/agent.jar",
    "_JAVA_OPTIONS": "-Xmx1m",
    "JDK_JAVA_OPTIONS": "-Xmx1m",
    "CLASSPATH": "/nonexistent/spark/jars/*",
    "PGPORT": "6543",
    "PGOPTIONS": "-c role=nobody",
    "LC_ALL": "xx_XX.UTF-8",
}


def test_the_demo_passes_and_its_hints_can_be_typed(folder: Path) -> None:
    state, replaced = folder / SPECIAL / "state:1", folder / "pyspark"
    replaced.mkdir()
    (replaced / "pyspark.py").write_text("raise ImportError('the Spark of another installation')")
    temporary = folder / f"t {SPECIAL}" / ("t" * (200 - len(str(folder)) - len(SPECIAL) - 4))
    temporary.mkdir(parents=True)
    assert len(str(temporary)) == 200
    settings = {"TMPDIR": str(temporary), "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(replaced), **FOREIGN}
    done = barflow("demo", "--symbols", "AAPL", "--days", "2", "--state", state, settings=settings)
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert "balanced" in done.out
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines() if line.startswith(("report", "query")))
    assert lines["report"] == str(state / "report.html")
    hint = shlex.split(lines["query"])
    assert hint[-2:] == ["--state", str(state)]
    shown = barflow(*hint[1:], "--format", "csv", settings=settings)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[1].startswith("AAPL,")


@pytest.mark.parametrize("name", ["t" * 180, "a b", "a,b", "a%b", "a@b", "[x]"])
def test_a_socket_gets_a_folder_that_a_dsn_can_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / name
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    made = _socket_folder(tmp_path, None, print)
    try:
        assert made.parent == SHORT_FOLDER
        assert PLAIN_FOLDER.fullmatch(str(made))
        assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (os.geteuid(), 0o700)
    finally:
        made.rmdir()
