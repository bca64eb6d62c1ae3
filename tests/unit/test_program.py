"""A Spark program ends in one line and an exit code, and the command that runs it takes both for its own.

Flaw 11 of earlier systems: exit codes of child processes were ignored.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from barflow import errors
from barflow.errors import BadInputError, BarflowError, UnavailableError, VendorRefusedError
from barflow.pipeline.children import run_child
from barflow.pipeline.program import as_known, run_program
from barflow.progress import Log

PARSER = argparse.ArgumentParser(prog="job.py")
PARSER.add_argument("--lake")


def child(tmp_path: Path, body: str) -> list[str]:
    """The command of a program with this body."""
    program = tmp_path / "job.py"
    program.write_text(f"import os, sys\n{body}\n")
    return [sys.executable, str(program)]


def test_a_child_s_words_are_passed_on_and_its_last_line_is_its_result(tmp_path: Path) -> None:
    body = "print('one', file=sys.stderr)\nprint('noise')\nprint('{\"rows\": 3}')\nprint('two', file=sys.stderr)"
    said: list[str] = []
    assert run_child(child(tmp_path, body), os.environ, said.append) == {"rows": 3}
    assert said == ["one", "two"]


def test_what_spark_says_of_itself_is_not_passed_on(tmp_path: Path) -> None:
    noise = (
        'Setting default log level to "WARN".',
        "26/11/24 20:00:00 WARN NativeCodeLoader: Unable to load native-hadoop library",
        "WARNING: Using incubator modules: jdk.incubator.vector",
        "",
    )
    body = "".join(f"print({line!r}, file=sys.stderr)\n" for line in noise) + "print('{}')"
    said: list[str] = []
    run_child(child(tmp_path, body), os.environ, said.append)
    assert said == []


@pytest.mark.parametrize(("code", "kind"), [(1, BarflowError), (2, BadInputError), (3, VendorRefusedError)])
def test_a_child_that_fails_fails_its_command_in_the_same_words(
    tmp_path: Path, code: int, kind: type[BarflowError]
) -> None:
    body = f"print('error: no such lake', file=sys.stderr)\nprint('bye', file=sys.stderr)\nsys.exit({code})"
    said: list[str] = []
    with pytest.raises(BarflowError, match=r"^no such lake$") as raised:
        run_child(child(tmp_path, body), os.environ, said.append)
    assert (type(raised.value), raised.value.exit_code, said) == (kind, code, ["bye"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(7)", r"job\.py was ended by exit code 7 after: no output\. What is stored stays"),
        ("print('half way', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)", r"by signal 9 after: half way\."),
    ],
)
def test_a_child_that_dies_without_a_word_fails_its_command(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(BarflowError, match=message):
        run_child(child(tmp_path, body), os.environ, lambda line: None)


def test_a_command_that_is_interrupted_ends_its_child(tmp_path: Path) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    body = "print('at work', file=sys.stderr, flush=True)\nimport time\ntime.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run_child(child(tmp_path, body), os.environ, interrupted, started.append)
    assert started[0].returncode == -signal.SIGTERM


def test_a_command_that_is_interrupted_waits_until_its_child_has_given_back_what_it_holds(tmp_path: Path) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    body = """
import signal, time
def give_back(*_):
    time.sleep(1)
    open("given-back", "w").close()
    sys.exit(130)
os.chdir(os.path.dirname(__file__))
signal.signal(signal.SIGTERM, give_back)
print("at work", file=sys.stderr, flush=True)
time.sleep(600)
"""
    with pytest.raises(KeyboardInterrupt):
        run_child(child(tmp_path, body), os.environ, interrupted, started.append)
    assert (started[0].returncode, (tmp_path / "given-back").exists()) == (130, True)


def run(capsys: pytest.CaptureFixture[str], work: Any, *argv: str) -> tuple[int, str, str]:
    code = run_program(PARSER, list(argv), work)
    return code, *capsys.readouterr()


def test_a_program_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    def work(arguments: argparse.Namespace, say: Log) -> dict[str, Any]:
        say("at work")
        return {"lake": arguments.lake}

    code, printed, said = run(capsys, work, "--lake", "x", "--JOB_NAME", "aggregate", "--enable-metrics", "true")
    assert (code, json.loads(printed), said) == (0, {"lake": "x"}, "at work\n")


@pytest.mark.parametrize("error", [BarflowError("no"), BadInputError("no"), VendorRefusedError("no")])
def test_a_program_that_fails_says_so_in_one_line(capsys: pytest.CaptureFixture[str], error: BarflowError) -> None:
    def work(arguments: argparse.Namespace, say: Log) -> dict[str, Any]:
        raise error

    assert run(capsys, work) == (error.exit_code, "", "error: no\n")


def test_an_argument_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run(capsys, lambda arguments, say: {}, "--warehous=postgresql://me:s3cret@host/db")
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert ("unknown argument --warehous" in said, "s3cret" in said) == (True, False)


def test_a_program_that_is_told_to_stop_gives_back_what_it_holds(tmp_path: Path) -> None:
    body = """
import argparse, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job, as the tests may be, ignores
from barflow.pipeline.program import run_program
def work(arguments, say):
    try:
        say("at work")
        time.sleep(600)
    finally:
        say("given back")
sys.exit(run_program(argparse.ArgumentParser(), [], work))
"""
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(child(tmp_path, body), stderr=subprocess.PIPE, text=True) as program:
            assert program.stderr is not None
            assert program.stderr.readline() == "at work\n"
            program.send_signal(number)
            said = program.stderr.read()
        assert (program.returncode, said.splitlines()[0]) == (130, "given back")
        assert said.splitlines()[1:] == ["error: stopped. What is stored stays, and the next run resumes from there."]


def test_sigterm_stops_also_what_a_shell_runs_in_the_background(tmp_path: Path) -> None:
    body = """
import argparse, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from barflow.pipeline.program import run_program
def work(arguments, say):
    say("at work")
    time.sleep(20)
    return {}
sys.exit(run_program(argparse.ArgumentParser(), [], work))
"""
    with subprocess.Popen(child(tmp_path, body), stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        assert program.stderr.readline() == "at work\n"
        program.terminate()
        said = program.stderr.read()  # to its end: a program whose last word nobody takes ends by a broken pipe
    assert (program.returncode, said[:15]) == (130, "error: stopped.")


SPARK_TASK = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/x/barflow/warehouse/connection.py", line 30, in warehouse_errors
    raise UnavailableError(
barflow.errors.UnavailableError: the warehouse could not take the rows of a task: gone.
"""
JAVA = """An error occurred while calling o53.count.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2785)

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:2790)
Caused by: java.lang.RuntimeException: file:/lake/bars.parquet is not a Parquet file. Expected magic number
\tat org.apache.parquet.hadoop.ParquetFileReader.readFooter(ParquetFileReader.java:565)
"""


def test_an_error_of_ours_inside_spark_s_words_is_that_error() -> None:
    known = as_known(RuntimeError(SPARK_TASK))
    assert (type(known), str(known)) == (
        UnavailableError,
        "the warehouse could not take the rows of a task: gone.",
    )


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError(JAVA), "RuntimeException: file:/lake/bars.parquet is not a Parquet file. Expected magic number"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: no message"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError("cannot open postgresql://me:s3cret@host/db"), "ValueError: cannot open postgresql://…@host/db"),
    ],
)
def test_any_other_error_is_its_cause_in_one_line_without_a_secret(error: Exception, cause: str) -> None:
    known = as_known(error)
    assert str(known) == (
        f"stopped by {cause}. What readers see is unchanged. Run it again; set BARFLOW_DEBUG=1 to see where."
    )


def test_every_kind_of_error_has_the_exit_code_of_the_contract() -> None:
    codes = {name: kind.exit_code for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert codes == {
        "BarflowError": 1,
        "UnavailableError": 1,
        "BusyError": 1,
        "BadInputError": 2,
        "VendorRefusedError": 3,
        "DayIsSpentError": 3,
        "NotInPlanError": 3,
    }
