"""Transient EMR clusters: the requests of a process run, and the clusters of an environment.

Requests are values computed from the runtime contract. A cluster has its environment and run as tags: with them a
retry finds its cluster, and the sweep finds clusters that no run uses. The EMR client (boto3) is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from barflow.contract import Emr, RuntimeContract

RUN_TAG = "barflow:run"
ENVIRONMENT_TAG = "barflow:env"
UP = ["RUNNING", "WAITING"]
ENDED = ["TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"]
ALIVE = ["STARTING", "BOOTSTRAPPING", *UP]
# Settings that the step's driver reads from variables: references to secrets, as in the contract.
STEP_SETTINGS = ("BARFLOW_MONGODB_URI",)
LINEAGE_SETTINGS = ("BARFLOW_ENV", "BARFLOW_OPENLINEAGE_URL", "BARFLOW_OPENLINEAGE_API_KEY")
Request = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """A live cluster: its id, the run that created it, and its creation time (UTC)."""

    cluster_id: str
    run_id: str
    created_at: datetime


def cluster_request(contract: RuntimeContract, run_id: str) -> Request:
    """Return the arguments of ``run_job_flow`` for the cluster of a run. It terminates itself when idle."""
    emr = contract.emr
    tags = {**emr.tags, RUN_TAG: run_id}
    return {
        "Name": f"{_name_prefix(contract.env)}{run_id}",
        "ReleaseLabel": emr.release,
        "Applications": [{"Name": "Spark"}],
        "ServiceRole": emr.service_role,
        "JobFlowRole": emr.instance_profile,
        "SecurityConfiguration": emr.security_configuration,
        "LogUri": emr.log_uri,
        "VisibleToAllUsers": True,
        "Tags": [{"Key": name, "Value": value} for name, value in sorted(tags.items())],
        "AutoTerminationPolicy": {"IdleTimeout": emr.idle_minutes * 60},
        "BootstrapActions": [
            {
                "Name": "pinned packages",
                "ScriptBootstrapAction": {"Path": emr.bootstrap_uri, "Args": [emr.packages_uri]},
            }
        ],
        "Configurations": [
            {"Classification": "spark-defaults", "Properties": {"spark.pyspark.python": emr.spark_python}}
        ],
        "Instances": {
            "Ec2SubnetIds": list(emr.subnet_ids),
            "EmrManagedMasterSecurityGroup": emr.primary_security_group,
            "EmrManagedSlaveSecurityGroup": emr.core_security_group,
            "ServiceAccessSecurityGroup": emr.service_security_group,
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
            "InstanceFleets": list(_fleets(emr)),
        },
    }


def spot_nodes(count: int, percent: int) -> int:
    """Return how many of the nodes of a fleet are Spot capacity."""
    return math.floor(count * percent / 100)


def _fleets(emr: Emr) -> Iterator[Request]:
    """Return the fleets: the primary on demand, and the configured share of core and task nodes as Spot capacity.

    EMR switches to on-demand capacity where Spot has none.
    """
    yield _fleet("MASTER", emr.primary_instance, emr.volume_gb, on_demand=1, spot=0)
    for kind, count in (("CORE", emr.core_count), ("TASK", emr.task_count)):
        spot = spot_nodes(count, emr.spot_percent)
        if count:
            yield _fleet(kind, emr.core_instance, emr.volume_gb, on_demand=count - spot, spot=spot)


def _fleet(kind: str, instance: str, volume_gb: int, *, on_demand: int, spot: int) -> Request:
    """Return an instance fleet of one instance type. ``volume_gb`` is the disk of each instance."""
    disk = {"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": volume_gb}, "VolumesPerInstance": 1}
    fleet: Request = {
        "Name": kind.lower(),
        "InstanceFleetType": kind,
        "TargetOnDemandCapacity": on_demand,
        "TargetSpotCapacity": spot,
        "InstanceTypeConfigs": [
            {
                "InstanceType": instance,
                "WeightedCapacity": 1,
                "EbsConfiguration": {"EbsBlockDeviceConfigs": [disk]},
            }
        ],
    }
    if spot:
        fleet["LaunchSpecifications"] = {
            "SpotSpecification": {"TimeoutDurationMinutes": 10, "TimeoutAction": "SWITCH_TO_ON_DEMAND"}
        }
    return fleet


def step_request(contract: RuntimeContract, run_id: str, lineage_parent: str | None = None) -> list[Request]:
    """Return the steps for ``add_job_flow_steps``: the only Spark step of a run, in cluster mode.

    ``lineage_parent`` is the OpenLineage run that starts it.
    """
    emr, values = contract.emr, contract.settings.environment()
    names = (*STEP_SETTINGS, *(LINEAGE_SETTINGS if contract.settings.openlineage_url else ()))
    variables = {name: values[name] for name in names if values[name]}
    variables["AWS_DEFAULT_REGION"] = contract.region  # boto3 on a node does not know it
    settings = [f"spark.yarn.appMasterEnv.{name}={value}" for name, value in variables.items()]
    arguments = ["spark-submit", "--deploy-mode", "cluster", "--py-files", emr.library_uri]
    for setting in [*settings, "spark.yarn.maxAppAttempts=1"]:
        arguments += ["--conf", setting]
    arguments += [emr.step_uri, "--lake", contract.settings.lake_uri, "--run-id", run_id]
    arguments += ["--lineage-parent", lineage_parent] if lineage_parent else []
    return [
        {
            "Name": f"bars to Parquet ({contract.env})",
            # The run reads why the step failed and then terminates the cluster itself.
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": arguments},
        }
    ]


def _name_prefix(env: str) -> str:
    """Return the prefix of the cluster names of an environment."""
    return f"barflow-{env}-"


def live_clusters(client: Any, env: str) -> Iterator[Cluster]:
    """Return the clusters of an environment that are not terminating.

    The role may describe clusters of its environment only, so clusters with another name prefix are skipped.
    """
    for page in client.get_paginator("list_clusters").paginate(ClusterStates=ALIVE):
        for item in page["Clusters"]:
            if not item["Name"].startswith(_name_prefix(env)):
                continue
            cluster = client.describe_cluster(ClusterId=item["Id"])["Cluster"]
            tags = {tag["Key"]: tag["Value"] for tag in cluster.get("Tags", [])}
            if tags.get(ENVIRONMENT_TAG) == env:
                created = cluster["Status"]["Timeline"]["CreationDateTime"]
                yield Cluster(item["Id"], tags.get(RUN_TAG, ""), created)


def find_cluster(client: Any, env: str, run_id: str) -> str | None:
    """Return the id of the live cluster that an earlier try of this run created, or None."""
    return next((found.cluster_id for found in live_clusters(client, env) if found.run_id == run_id), None)


def orphaned(clusters: Iterable[Cluster], is_live: Callable[[str], bool | None], before: datetime) -> list[Cluster]:
    """Return the clusters that no run uses: the run has ended, or is unknown and began before ``before`` (UTC).

    ``is_live`` returns whether a run is in progress, or None for a run that it does not know: `barflow run` started it.
    """

    def is_orphaned(cluster: Cluster) -> bool:
        live = is_live(cluster.run_id)
        return cluster.created_at < before if live is None else not live

    return [item for item in clusters if is_orphaned(item)]
