"""What the deployment of an environment needs of its account, for `barflow preflight`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError
from barflow.operations.clusters import spot_nodes
from barflow.operations.preflight.needs import FixedName, Needs, Policy
from config import versions
from config.aws import checks
from config.environment import Environment
from stacks import outputs
from stacks.templates import NAMES, Resolver, Stack, read_stacks

ROOT = Path(__file__).parents[1]
BUDGET_TAG = "barflow:env"
# The secrets whose values an operator sets.
OPERATOR_SECRETS = (
    outputs.TWELVEDATA_SECRET,
    outputs.MONGODB_SECRET,
    outputs.SLACK_SECRET,
    outputs.WEBHOOK_SECRET,
    outputs.APPRISE_SECRET,
    outputs.SSH_CONNECTION_SECRET,
    outputs.SLACK_CONNECTION_SECRET,
)
IDENTITY, RESOURCE = "IDENTITY_POLICY", "RESOURCE_POLICY"
# The types with identity policies. All other policies of the templates are resource policies.
IDENTITY_TYPES = {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}
TRUST = "AssumeRolePolicyDocument"
# The resource policies for which Access Analyzer has checks by type.
ATTACHED_TO = {"AWS::S3::BucketPolicy": "AWS::S3::Bucket", TRUST: f"AWS::IAM::{TRUST}"}


def synthesize(env: str, folder: Path) -> None:
    """Make the templates of an environment in a folder, without building assets.

    Raise BadInputError with the reason if they cannot be made.
    """
    variables = os.environ | {
        "CDK_OUTDIR": str(folder),
        "CDK_CONTEXT_JSON": json.dumps({**_context(), "env": env, "aws:cdk:bundling-stacks": []}),
        # The CDK runs on the virtual environment's Node.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
    }
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise BadInputError(f"the templates of {env} cannot be made: {reason}. Run `make synth ENV={env}` to see why.")


def _context() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return found


def stacks_of(env: str, assembly: Path) -> list[Stack]:
    """Return the stacks of an environment from a cloud assembly. Raise BadInputError if it has none."""
    make = f"Make it with `npx cdk synth -c env={env} --output {assembly}`."
    try:
        found = read_stacks(assembly)
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(f"--assembly {assembly} is not a cloud assembly ({error}). {make}") from None
    mine = [stack for stack in found if stack.name.startswith(f"Barflow-{env}-")]
    if not mine:
        raise BadInputError(f"--assembly {assembly} has no stack of {env}. {make}")
    return mine


def needs_of(environment: Environment, resolver: Resolver) -> Needs:
    """Return what the deployment needs, from the settings and the resolver's stacks."""
    stacks, emr, network = resolver.stacks, environment.emr, environment.network
    return Needs(
        env=environment.name,
        stacks=tuple(stack.name for stack in stacks),
        bootstrap_version=max(stack.bootstrap_version for stack in stacks),
        bootstrap_parameter=stacks[0].bootstrap_parameter,
        zones=network.zones,
        zone_names=network.zone_names,
        region_problems=tuple(
            checks.region_problems(
                resolver.region,
                host=environment.host.instance_type,
                emr=(emr.primary_instance, emr.core_instance),
                database=environment.database.instance_class,
            )
        ),
        elastic_ips=frozenset(_places(stacks, "AWS::EC2::EIP")),
        vpcs=frozenset(_places(stacks, "AWS::EC2::VPC")),
        reserved={
            (stack.name, logical_id): body["Properties"]["ReservedConcurrentExecutions"]
            for stack in stacks
            for logical_id, body in stack.resources("AWS::Lambda::Function")
            if body["Properties"].get("ReservedConcurrentExecutions")
        },
        on_demand=_on_demand(environment),
        spot=_spot(environment),
        emr_release=versions.EMR_RELEASE,
        emr_types=(emr.primary_instance, emr.core_instance),
        database_version=environment.database.engine_version,
        database_class=environment.database.instance_class,
        policies=tuple(_policies(resolver)),
        names=tuple(_names(resolver)),
        operator_secrets=tuple(_operator_secrets(resolver)),
        driver_outputs=(
            f"Barflow-{environment.name}-{outputs.JDBC_DRIVER.stack}",
            outputs.JDBC_DRIVER.key,
            outputs.JDBC_DRIVER_SHA256.key,
        ),
        budget_tag=BUDGET_TAG,
    )


def _places(stacks: list[Stack], kind: str) -> Iterator[tuple[str, str]]:
    """Yield the stack and the logical id of each resource of a type."""
    return ((stack.name, logical_id) for stack in stacks for logical_id, _ in stack.resources(kind))


def _on_demand(environment: Environment) -> Mapping[str, int]:
    """Return the on-demand instances: two hosts while one replaces the other, and the nodes of a cluster."""
    emr, counts = environment.emr, Counter({environment.host.instance_type: 2})
    counts[emr.primary_instance] += 1
    for nodes in (emr.core_count, emr.task_count):
        counts[emr.core_instance] += nodes - spot_nodes(nodes, emr.spot_percent)
    return +counts


def _spot(environment: Environment) -> Mapping[str, int]:
    """Return the Spot instances of a cluster."""
    emr = environment.emr
    nodes = sum(spot_nodes(count, emr.spot_percent) for count in (emr.core_count, emr.task_count))
    return +Counter({emr.core_instance: nodes})


def _names(resolver: Resolver) -> Iterator[FixedName]:
    """Yield the resources with fixed names."""
    for stack in resolver.stacks:
        for logical_id, body in stack.resources():
            name = resolver.name(stack, logical_id) if body["Type"] in NAMES else None
            if name is not None:
                yield FixedName(body["Type"], name, stack.name, logical_id)


def _operator_secrets(resolver: Resolver) -> Iterator[str]:
    """Yield the names of the secrets that an operator sets, from the outputs that name them."""
    by_part = {stack.name.rsplit("-", 1)[1]: stack for stack in resolver.stacks}
    for output in OPERATOR_SECRETS:
        stack = by_part[output.stack]
        if found := stack.template["Outputs"].get(output.key):
            yield str(resolver.resolve(stack, found["Value"]))


def _policies(resolver: Resolver) -> Iterator[Policy]:
    """Yield every policy of the templates."""
    for stack in resolver.stacks:
        for logical_id, body in stack.resources():
            for property_, document in _documents(body.get("Properties", {})):
                identity = body["Type"] in IDENTITY_TYPES and property_ != TRUST
                yield Policy(
                    f"{stack.name}/{logical_id} {property_}",
                    IDENTITY if identity else RESOURCE,
                    json.dumps(resolver.resolve(stack, document), sort_keys=True),
                    ATTACHED_TO.get(property_) or ATTACHED_TO.get(body["Type"], ""),
                )


def _documents(value: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every policy document within a value, with the property that holds it."""
    if isinstance(value, Mapping):
        if isinstance(value.get("Statement"), list):
            yield name, value
            return
        for key, item in value.items():
            yield from _documents(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _documents(item, name)
