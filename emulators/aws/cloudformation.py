"""Where moto's CloudFormation differs from AWS's in what a deployment relies on: put right in moto's own process.

Importing this module mends moto. Each mend is a difference that a deployment, an update or a teardown met; types that
moto lacks are in resource_types.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.route_tables import RouteTable
from moto.iam.models import Role, iam_backends
from moto.utilities.utils import get_partition

Work = Callable[..., Any]


def _around(owner: Any, name: str) -> Callable[[Work], Work]:
    """Puts a function in the place of moto's, which it gets as its first argument."""

    def put(new: Work) -> Work:
        old = getattr(owner, name)
        setattr(owner, name, wraps(old)(lambda *given, **named: new(old, *given, **named)))
        return new

    return put


@_around(CloudFormationBackend, "create_stack")
@_around(CloudFormationBackend, "update_stack")
def _say_why(work: Work, *given: Any, **named: Any) -> Any:
    """A resource that cannot be made is an answer with a reason, not a broken server that the CLI asks again."""
    try:
        return work(*given, **named)
    except Exception as error:
        raise ValidationError(message=f"{type(error).__name__}: {error}") from error


@_around(CloudFormationBackend, "_resolve_update_parameters")
def _keep_defaults(work: Work, self: Any, instance: Any, incoming_params: Any) -> Any:
    """An update that keeps a parameter's value also keeps one that came from the template's default."""
    declared = instance.template_dict.get("Parameters", {})
    instance.parameters = {name: item.get("Default") for name, item in declared.items()} | instance.parameters
    return work(self, instance, incoming_params)


@_around(parsing, "parse_and_create_resource")
def _after_what_it_depends_on(work: Work, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """A resource waits for what it depends on also where another one asks for it: a role's policy for its function."""
    named = body.get("DependsOn", [])
    for other in [named] if isinstance(named, str) else named:
        resources[other]
    return work(logical_id, body, resources, **where)


@_around(parsing, "parse_and_update_resource")
def _keep_resource(work: Work, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """What moto cannot update stays as it was, and a bucket keeps the name that it was given."""
    before = resources[logical_id]
    if body["Type"] == "AWS::S3::Bucket":
        body = body | {"Properties": {"BucketName": before.name} | body["Properties"]}
    return work(logical_id, body, resources, **where) or before


@_around(CloudFormationBackend, "delete_stack")
def _delete_for_good(work: Work, self: Any, name_or_stack_id: str) -> None:
    """Termination protection is honoured, and no look at a stack that is gone makes its resources again."""
    stack = self.get_stack(name_or_stack_id)
    if stack.enable_termination_protection:
        raise ValidationError(message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is on")
    work(self, name_or_stack_id)
    stack.output_map._output_json_map = {}


def _update_termination_protection(self: CloudFormationResponse) -> ActionResult:
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


def _delete_with_interface(self: NatGateway, *where: str) -> None:
    """A stack's NAT gateway goes, and its network interface with it; one that stays would hold the VPC."""
    self.ec2_backend.delete_nat_gateway(self.id)
    self.ec2_backend.delete_network_interface(self._eni.id)


def _delete_route_table(self: RouteTable, *where: str) -> None:
    """A stack's route table goes; one that stays would hold the VPC."""
    self.ec2_backend.delete_route_table(self.id)


@_around(Role, "delete_from_cloudformation_json")
def _detach_first(work: Work, name: str, body: Any, account: str, region: str) -> None:
    """A stack's role goes with the managed policies that it had."""
    backend = iam_backends[account][get_partition(region)]
    for arn in list(backend.get_role(name).managed_policies):
        backend.detach_role_policy(arn, name)
    work(name, body, account, region)


NatGateway.delete = _delete_with_interface
RouteTable.delete = _delete_route_table
CloudFormationResponse.update_termination_protection = _update_termination_protection
