"""Deployments that fail, change or share an account. Each ends as on CloudFormation, and the next one succeeds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from barflow.errors import BarflowError
from emulators.aws.arrows import Deployed, problems
from emulators.aws.deployed import deployed_resources
from emulators.aws.faults import Fault
from emulators.aws.template_references import references
from rehearsal.deploy import ROOT, Cdk
from rehearsal.environment import RehearsedEnvironment

# The files that the second version changes: the host's boot content, a program, and a function.
CHANGED_FILES = ("orchestration/host/bootstrap.sh", "spark/bars_to_parquet.py", "lambda/notify/handler.py")
LAST_STACK = "Observability"
# The folders that a copy of the checkout links to.
SHARED = (".venv", "node_modules", "build")


def fail_first_deployments(deployed: RehearsedEnvironment) -> str:
    """Let the first creation of each stack fail at its last resource. The next deployment must create the stack.

    Raise BarflowError if a deployment fails for another reason, such as a name that a rollback left taken.
    """
    stacks = _last_resources(deployed.folder / "assembly")
    for last in stacks.values():
        deployed.runtime.inject(Fault.RESOURCE_FAILS, last)
    failed: set[str] = set()
    while failed != stacks.keys():
        for stack in _fail_deployment(deployed, "ROLLBACK_COMPLETE", failed):
            allow_deletion(deployed, stack)
            failed.add(stack)
    deployed.deploy()
    return f"{len(stacks)} stacks rolled back, then created"


def allow_deletion(deployed: RehearsedEnvironment, stack: str) -> None:
    """Turn off termination protection of a stack, as an operator does after a failed creation.

    The CLI deletes such a stack before it creates it again, and cannot delete a protected one.
    """
    deployed.client("cloudformation").update_termination_protection(StackName=stack, EnableTerminationProtection=False)


def deploy_changed_version(deployed: RehearsedEnvironment) -> str:
    """Deploy another version of the host's boot content, a program and a function, and the first version again.

    The first try fails in the last stack and is rolled back. Raise BarflowError if a stack ends in another state, or if
    the host is not replaced.
    """
    copy, hosts = deployed.folder / "second", [_host(deployed)]
    _copy_checkout(copy)
    for name in CHANGED_FILES:
        with (copy / name).open("a") as file:
            file.write("\n# the second version\n")
    second = Cdk(deployed.aws, deployed.env, deployed.folder / "second-assembly", checkout=copy)
    second.synth()
    deployed.runtime.inject(Fault.RESOURCE_FAILS, _changed_function(deployed, LAST_STACK))
    (stack,) = _fail_deployment(deployed, "UPDATE_ROLLBACK_COMPLETE", version=second)
    for version in (second, None):
        deployed.deploy(version)
        hosts.append(_host(deployed))
    if len(set(hosts)) != len(hosts):
        raise BarflowError(f"a deployment with other boot content did not replace the host: {hosts}")
    return f"{stack} rolled back, then 3 versions on 3 hosts"


def deploy_second_environment(deployed: RehearsedEnvironment) -> str:
    """Deploy another environment into the same account and region. Return how many stacks it has."""
    env = "staging" if deployed.env != "staging" else "dev"
    cdk = Cdk(deployed.aws, env, deployed.folder / f"{env}-assembly")
    outputs = deployed.folder / f"{env}-outputs.json"
    cdk.synth()
    cdk.deploy(outputs)
    return f"{len(json.loads(outputs.read_text()))} stacks of {env} beside {deployed.env}"


def check_arrows(deployed: RehearsedEnvironment) -> str:
    """Check that the policies at both ends allow every call between services.

    Raise BarflowError with each arrow that is denied, and each policy without a condition on the source.
    """
    resources = deployed_resources(deployed.aws.url)
    if found := problems(resources):
        raise BarflowError(f"{len(found)} arrows are wrong: {'; '.join(found)}")
    return f"{len(list(Deployed(resources).arrows()))} calls between services allowed"


def _fail_deployment(
    deployed: RehearsedEnvironment, state: str, before: Collection[str] = (), version: Cdk | None = None
) -> set[str]:
    """Deploy to the next injected fault, and return the stacks that it leaves in this state.

    Raise BarflowError if the deployment succeeds, fails otherwise, or leaves only stacks that failed before.
    """
    try:
        deployed.deploy(version)
    except BarflowError:
        found = deployed.client("cloudformation").describe_stacks()["Stacks"]
        stacks = {str(item["StackName"]) for item in found if item["StackStatus"] == state} - set(before)
        if not stacks:
            raise
        return stacks
    raise BarflowError("the deployment succeeded, although a resource had to fail")


def _last_resources(assembly: Path) -> dict[str, str]:
    """Return the logical id of the resource that is created last, by stack."""
    last = {}
    for path in assembly.glob("*.template.json"):
        resources: dict[str, Any] = json.loads(path.read_text())["Resources"]
        used = {found for body in resources.values() for found in references(body)}
        last[path.name.removesuffix(".template.json")] = [name for name in resources if name not in used][-1]
    return last


def _changed_function(deployed: RehearsedEnvironment, part: str) -> str:
    """Return the logical id of a function of the stack whose code differs from the deployed one."""
    stack = f"Barflow-{deployed.env}-{part}"
    old, new = (
        json.loads((deployed.folder / name / f"{stack}.template.json").read_text())["Resources"]
        for name in ("assembly", "second-assembly")
    )
    for logical_id, body in new.items():
        if body["Type"] == "AWS::Lambda::Function" and body != old.get(logical_id):
            return str(logical_id)
    raise BarflowError(f"the second version changes no function of {stack}")


def _host(deployed: RehearsedEnvironment) -> str:
    return deployed.outputs["Orchestration"]["HostId"]


def _copy_checkout(target: Path) -> None:
    """Copy the files of the checkout, and link the folders that `make setup` made."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    for name in SHARED:
        (target / name).symlink_to(ROOT / name)
