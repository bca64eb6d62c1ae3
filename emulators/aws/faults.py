"""The faults that a test or the rehearsal can inject into the AWS emulator."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """A fault that the next program, cluster or request meets."""

    STEP_KILLED = "The next Spark step is killed, as on a node that runs out of memory."
    JOB_KILLED = "The next Glue job run is killed."
    JOB_TIMEOUT = "The next Glue job run reaches its time limit."
    CLUSTER_STUCK = "The next cluster stays in STARTING, as when EC2 has no capacity."
    LATE_ANSWER = "The next cluster is created, and RunJobFlow answers later; `at` is the delay in seconds."
    RESOURCE_FAILS = "A resource of a stack fails; `at` is its logical id or its type."
