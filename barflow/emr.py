"""The cluster of a process run and its one step, as EMR's API takes them, out of the runtime contract. Pure.

The cluster ends by itself when its step fails or when it has idled, whatever becomes of who made it.
"""

from __future__ import annotations

from typing import Any

from barflow.contract import Emr, RuntimeContract

RUN_TAG = "barflow:run"
# How long spare capacity may take to come before capacity at full price is taken instead.
SPOT_MINUTES = 10


def cluster(contract: RuntimeContract, run_id: str) -> dict[str, Any]:
    """The arguments of RunJobFlow. The tags name environment and run, so that a retry finds the cluster it made."""
    emr = contract.emr
    return {
        "Name": f"barflow {contract.env} {run_id}",
        "ReleaseLabel": emr.release,
        "Applications": [{"Name": "Spark"}],
        "ServiceRole": emr.service_role,
        "JobFlowRole": emr.instance_profile,
        "SecurityConfiguration": emr.security_configuration,
        "LogUri": emr.log_uri,
        "Instances": {
            "InstanceFleets": _fleets(emr),
            "Ec2SubnetIds": list(emr.subnet_ids),
            "EmrManagedMasterSecurityGroup": emr.primary_security_group,
            "EmrManagedSlaveSecurityGroup": emr.core_security_group,
            "ServiceAccessSecurityGroup": emr.service_security_group,
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
        },
        "AutoTerminationPolicy": {"IdleTimeout": emr.idle_minutes * 60},
        "BootstrapActions": [
            {
                "Name": "install packages",
                "ScriptBootstrapAction": {"Path": emr.bootstrap_uri, "Args": [emr.packages_uri]},
            }
        ],
        "Configurations": _configurations(contract),
        "VisibleToAllUsers": True,
        "Tags": [{"Key": key, "Value": value} for key, value in sorted({**emr.tags, RUN_TAG: run_id}.items())],
    }


def step(contract: RuntimeContract, run_id: str, *arguments: str) -> dict[str, Any]:
    """The step of spark/bars_to_parquet.py; ``arguments`` are more of the program's own, as ``--full``."""
    emr = contract.emr
    submit = ["spark-submit", "--deploy-mode", "client", "--py-files", emr.library_uri, emr.step_uri]
    return {
        "Name": f"bars to Parquet {run_id}",
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {
            "Jar": "command-runner.jar",
            "Args": [*submit, "--lake", contract.settings.lake_uri, "--run-id", run_id, *arguments],
        },
    }


def _fleets(emr: Emr) -> list[dict[str, Any]]:
    fleets = [
        _fleet("MASTER", emr.primary_instance, 1, 0, emr),
        _fleet("CORE", emr.core_instance, *_split(emr.core_count, emr), emr),
    ]
    if emr.task_count:
        fleets.append(_fleet("TASK", emr.core_instance, *_split(emr.task_count, emr), emr))
    return fleets


def _split(count: int, emr: Emr) -> tuple[int, int]:
    """Instances on demand, and on spot."""
    spot = round(count * emr.spot_percent / 100)
    return count - spot, spot


def _fleet(kind: str, instance: str, on_demand: int, spot: int, emr: Emr) -> dict[str, Any]:
    disk = {"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": emr.volume_gb}, "VolumesPerInstance": 1}
    made: dict[str, Any] = {
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
        made["LaunchSpecifications"] = {
            "SpotSpecification": {
                "TimeoutDurationMinutes": SPOT_MINUTES,
                "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                "AllocationStrategy": "price-capacity-optimized",
            }
        }
    return made


def _configurations(contract: RuntimeContract) -> list[dict[str, Any]]:
    """Spark's Python, and what the step reads from its environment: a reference to the secret, never a value."""
    variables = {
        "PYSPARK_PYTHON": contract.emr.spark_python,
        "PYSPARK_DRIVER_PYTHON": contract.emr.spark_python,
        "AWS_DEFAULT_REGION": contract.region,
        "BARFLOW_MONGODB_URI": contract.settings.mongodb_uri,
    }
    export = {"Classification": "export", "Properties": variables}
    return [
        {"Classification": "spark-env", "Properties": {}, "Configurations": [export]},
        # One run has the cluster to itself.
        {"Classification": "spark", "Properties": {"maximizeResourceAllocation": "true"}},
    ]
