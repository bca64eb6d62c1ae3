"""The transient EMR cluster of a process run: what to ask EMR for, and which clusters are whose.

Requests are pure values out of the runtime contract. A cluster carries the environment and the run in its tags, by
which a retry finds it again and the sweep knows it. The EMR client (boto3) is passed in.
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
ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
# What the step's driver reads and no argument says: a reference to the secret, as the contract holds it.
STEP_SETTINGS = ("BARFLOW_MONGODB_URI",)
Request = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """A cluster that is alive: its id, the run it was made for, and when (UTC)."""

    cluster_id: str
    run_id: str
    created_at: datetime


def cluster_request(contract: RuntimeContract, run_id: str) -> Request:
    """The arguments of ``run_job_flow`` for one run's cluster. It ends itself when nobody uses it."""
    emr = contract.emr
    tags = {**emr.tags, RUN_TAG: run_id}
    return {
        "Name": f"{_names_start(contract.env)}{run_id}",
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


def _fleets(emr: Emr) -> Iterator[Request]:
    """The primary on demand; of core and task nodes the configured share as spot, which falls back to on demand."""
    yield _fleet("MASTER", emr.primary_instance, emr.volume_gb, on_demand=1, spot=0)
    for kind, count in (("CORE", emr.core_count), ("TASK", emr.task_count)):
        spot = math.floor(count * emr.spot_percent / 100)
        if count:
            yield _fleet(kind, emr.core_instance, emr.volume_gb, on_demand=count - spot, spot=spot)


def _fleet(kind: str, instance: str, volume_gb: int, *, on_demand: int, spot: int) -> Request:
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


def step_request(contract: RuntimeContract, run_id: str) -> list[Request]:
    """The arguments of ``add_job_flow_steps``: the one Spark step of a run, in the cluster."""
    emr, values = contract.emr, contract.settings.environment()
    variables = {name: values[name] for name in STEP_SETTINGS}
    variables["AWS_DEFAULT_REGION"] = contract.region  # a node does not tell it by itself
    settings = [f"spark.yarn.appMasterEnv.{name}={value}" for name, value in variables.items()]
    arguments = ["spark-submit", "--deploy-mode", "cluster", "--py-files", emr.library_uri]
    for setting in [*settings, "spark.yarn.maxAppAttempts=1"]:
        arguments += ["--conf", setting]
    arguments += [emr.step_uri, "--lake", contract.settings.lake_uri, "--run-id", run_id]
    return [
        {
            "Name": "bars to Parquet",
            # The cluster is ended by the run that made it, which also hears why the step failed.
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": arguments},
        }
    ]


def _names_start(env: str) -> str:
    """How the names of an environment's clusters begin."""
    return f"barflow-{env}-"


def alive(client: Any, env: str) -> Iterator[Cluster]:
    """The clusters of an environment that cost money now. Those of others in the account may not be looked into."""
    for page in client.get_paginator("list_clusters").paginate(ClusterStates=ALIVE):
        for item in page["Clusters"]:
            if not item["Name"].startswith(_names_start(env)):
                continue
            cluster = client.describe_cluster(ClusterId=item["Id"])["Cluster"]
            tags = {tag["Key"]: tag["Value"] for tag in cluster.get("Tags", [])}
            if tags.get(ENVIRONMENT_TAG) == env:
                made = cluster["Status"]["Timeline"]["CreationDateTime"]
                yield Cluster(item["Id"], tags.get(RUN_TAG, ""), made)


def find_cluster(client: Any, env: str, run_id: str) -> str | None:
    """The cluster that an earlier try of this run made and that still lives."""
    return next((found.cluster_id for found in alive(client, env) if found.run_id == run_id), None)


def strays(clusters: Iterable[Cluster], is_live: Callable[[str], bool | None], before: datetime) -> list[Cluster]:
    """The clusters whose run has ended, and those of runs that nobody knows made before ``before``. Pure.

    ``is_live`` says whether a run goes on, or None where it does not know it: somebody may have started it by hand.
    """

    def is_stray(cluster: Cluster) -> bool:
        live = is_live(cluster.run_id)
        return cluster.created_at < before if live is None else not live

    return [item for item in clusters if is_stray(item)]
