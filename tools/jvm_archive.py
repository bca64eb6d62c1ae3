"""Write the class archive (AppCDS) of the embedded Java, with which a Spark session starts in half the CPU time.

The make targets that start Spark run it once; by hand:  .venv/bin/python -m tools.jvm_archive

The archive holds the classes of a Spark session, parsed and verified. It is in the place in which Java looks for one, so
no program names it. Java compares it with its own version and the jars, and starts without it if they differ.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from barflow.pipeline.environment import own_environment, spark_environment

SECONDS = 600  # for each step; a step takes ten seconds on an idle machine


def session(folder: str) -> None:
    """Run the operations of the Spark programs on a few rows. Print the class path of the JVM."""
    from barflow.pipeline.spark import spark_session

    spark = spark_session("class archive")
    columns = "'AAPL' as symbol", "current_date() as day", "timestamp_seconds(id) as ts", "1D as close", "id as volume"
    spark.range(9).selectExpr(*columns).write.partitionBy("symbol").parquet(folder)
    days = spark.sql(
        "select inline(from_json(:rows, 'array<struct<symbol string>>'))", {"rows": '[{"symbol": "AAPL"}]'}
    )
    bars = spark.read.parquet(folder).join(days.hint("broadcast"), "symbol")
    bars.repartition("symbol").cache().createOrReplaceTempView("bars")
    changes = spark.sql("select *, close - lag(close) over (partition by symbol order by ts) as change from bars")
    changes.createOrReplaceTempView("changes")
    daily = spark.sql("select symbol, max_by(close, ts), stddev_samp(change), sum(volume) from changes group by symbol")
    daily.mapInArrow(lambda batches: batches, daily.schema).collect()
    spark.sparkContext.parallelize([1, 2], 2).map(abs).collect()
    print(spark.sparkContext._jvm.System.getProperty("java.class.path"))
    spark.stop()


def write_archive(home: Path) -> Path:
    """Write the archive of the Java in this folder and return its path. Programs that run keep the one they opened.

    Raises OSError or subprocess.SubprocessError if a step fails. The former archive stays then.
    """
    server = home / "lib" / "server"
    with tempfile.TemporaryDirectory(prefix="archive-", dir=server) as folder:
        classes, written = Path(folder, "classes.txt"), Path(folder, "classes.jsa")
        options = f"--driver-java-options -XX:DumpLoadedClassList={shlex.quote(str(classes))}"
        spark = {**spark_environment(), "PYSPARK_SUBMIT_ARGS": f"--master local[2] {options} pyspark-shell"}
        code = f"from tools.jvm_archive import session; session({folder + '/bars'!r})"
        class_path = _run([sys.executable, "-c", code], spark).splitlines()[-1]
        dump(home, classes, class_path, written)
        return written.rename(server / written.name)


def dump(home: Path, classes: Path, class_path: str, written: Path) -> None:
    """Write the archive of the listed classes, and check that Java starts with it.

    With G1, the archive gets a last region. Without one, Java 17 does not notice a truncated archive, and crashes.
    """
    java, archive = str(home / "bin" / "java"), f"-XX:SharedArchiveFile={written}"
    _run([java, "-XX:+UseG1GC", "-Xshare:dump", f"-XX:SharedClassListFile={classes}", archive, "-cp", class_path], {})
    _run([java, "-Xshare:on", archive, "-cp", class_path, "-version"], {})
    with written.open("rb") as file:
        os.fsync(file.fileno())


def _run(command: list[str], variables: dict[str, str]) -> str:
    environment = {**own_environment(), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout


def main() -> int:
    """Write the archive of the wheel's Java. Return 1 if that fails: everything works without it, more slowly."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        archive = write_archive(Path(spark_environment()["JAVA_HOME"]))
    except (OSError, subprocess.SubprocessError) as error:
        reason = ((getattr(error, "stderr", None) or "").strip() or str(error)).splitlines()[-1].rstrip(".")
        print(
            f"cannot write Java's class archive: {reason}. Spark works without it, and starts more slowly. "
            "To try again, run `.venv/bin/python -m tools.jvm_archive`.",
            file=sys.stderr,
        )
        return 1
    print(f"{archive}: {archive.stat().st_size // 10**6} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
