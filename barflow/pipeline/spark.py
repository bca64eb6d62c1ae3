"""The Spark session of every program: the same settings on a laptop, EMR and Glue."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EVERYWHERE = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # The partition columns symbol and month are text, also where they look like a number or a date.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # The files are listed explicitly; a Spark job to discover them costs more than it saves.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    # Cached data is read a few times only: compressing it costs more than it saves.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
}
# Settings of an embedded session: one machine, no UI, loopback only.
EMBEDDED = {
    "spark.ui.enabled": "false",
    # Other users of the machine reach the driver's port. It reads Java objects, so it needs the run's own secret.
    "spark.authenticate": "true",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    # Start fast: a run ends before the optimizing compiler or a concurrent collector pays off.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.python.daemon.module": "barflow.pipeline.spark_daemon",
    # With few partitions, adaptive execution only adds planning time.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
}


def spark_session(app_name: str, *tasks: str) -> SparkSession:
    """Return the cluster's session if the program was submitted to one, else an embedded session.

    ``tasks`` names the modules of the program's Python tasks, which an embedded session imports once for all workers.
    """
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    embedded = EMBEDDED | ({"spark.executorEnv.SPARK_TASKS_MODULES": ",".join(tasks)} if tasks else {})
    for name, value in (EVERYWHERE if submitted else EVERYWHERE | embedded).items():
        builder = builder.config(name, value)
    with _deferred_signals():
        spark: SparkSession = builder.getOrCreate()
    # An embedded run shows the program's own error only; a cluster's log keeps Spark's messages too.
    spark.sparkContext.setLogLevel("ERROR" if submitted or os.environ.get("BARFLOW_DEBUG") else "OFF")
    return spark


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM only after the block, in which the JVM starts.

    PySpark that is interrupted there deletes the file to which the JVM writes its port. The JVM would then never see
    that its Python program has ended, and would run forever.
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, record)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is record:  # Spark installs its own handler of Ctrl-C, which stays
                signal.signal(number, handler)
    for late in received:
        signal.raise_signal(late)
