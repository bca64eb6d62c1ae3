"""The Spark session of every program: the same settings on a laptop, on EMR and on Glue."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EVERYWHERE = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # A partition's symbol and month are text, also when they look like a number or a date.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # The files are named one by one; finding them again by a job of its own costs more than it saves.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    # What is cached is read a handful of times: compressing it costs more than it saves.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
}
# Where no cluster has set its own: one machine, nothing to watch, loopback only.
EMBEDDED = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    # Quick to start: a run here is over before the optimising compiler and a concurrent collector pay.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.python.daemon.module": "barflow.pipeline.spark_daemon",
    # So few partitions need no second thought while they run.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
}


def spark_session(app_name: str) -> SparkSession:
    """The session: that of the cluster when the program was submitted to one, else Spark inside this machine."""
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    for name, value in (EVERYWHERE if submitted else EVERYWHERE | EMBEDDED).items():
        builder = builder.config(name, value)
    spark: SparkSession = builder.getOrCreate()
    # On one machine the program's own error is all there is to say; a cluster's log keeps Spark's, too.
    spark.sparkContext.setLogLevel("ERROR" if submitted or os.environ.get("BARFLOW_DEBUG") else "OFF")
    return spark
