"""Patches of moto's CloudFormation where it differs from AWS in what a deployment, an update or a teardown needs.

The module resource_types has the resource types that moto lacks.
"""

from __future__ import annotations

from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.route_tables import RouteTable
from moto.iam.models import Role, iam_backends
from moto.sns.models import Topic
from moto.utilities.utils import get_partition

from emulators.aws.patches import Function, add, wrap


@wrap(CloudFormationBackend, "_resolve_update_parameters")
def _keep_defaults(original: Function, backend: Any, instance: Any, incoming_params: Any) -> Any:
    """Keep a parameter's value in an update also when the value is the template's default."""
    declared = instance.template_dict.get("Parameters", {})
    instance.parameters = {name: item.get("Default") for name, item in declared.items()} | instance.parameters
    return original(backend, instance, incoming_params)


@wrap(CloudFormationResponse, "_validate_different_update")
def _resolve_parameters_again(original: Function, response: Any, parameters: Any, body: str, stack: Any) -> None:
    """Let an update pass whose template is the same if the value of an SSM parameter in it has changed."""
    resources = stack.resource_map
    for name, declared in resources._template.get("Parameters", {}).items():
        if declared["Type"].startswith("AWS::SSM::Parameter::"):
            path = resources.input_parameters.get(name, declared.get("Default"))
            if resources.parse_ssm_parameter(path, declared["Type"]) != resources.resolved_parameters[name]:
                return
    original(response, parameters, body, stack)


@wrap(parsing, "parse_and_create_resource")
def _create_after_dependencies(original: Function, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """Create what a resource depends on first, also when another resource refers to it.

    For example, a role's policy exists before the function that needs it.
    """
    dependencies = body.get("DependsOn", [])
    for dependency in [dependencies] if isinstance(dependencies, str) else dependencies:
        resources[dependency]
    return original(logical_id, body, resources, **where)


@wrap(parsing, "parse_and_update_resource")
def _keep_resource(original: Function, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """Keep a resource that moto cannot update, except what else depends on, and keep a bucket's generated name."""
    before = resources[logical_id]
    if body["Type"] == "AWS::KMS::Key":
        before.policy = parsing.clean_json(body["Properties"]["KeyPolicy"], resources)
    if body["Type"] == "AWS::RDS::DBInstance":
        before.deletion_protection = body["Properties"].get("DeletionProtection", False)
    if body["Type"] == "AWS::S3::Bucket":
        body = body | {"Properties": {"BucketName": before.name} | body["Properties"]}
    return original(logical_id, body, resources, **where) or before


@wrap(Topic, "update_from_cloudformation_json")
def _update_topic(
    _original: Function, _cls: type[Topic], original_resource: Topic, *_: Any, cloudformation_json: Any, **more: Any
) -> Topic:
    """Update a topic in its place, with its subscriptions and its policy. moto creates another one."""
    original_resource.kms_master_key_id = cloudformation_json["Properties"].get("KmsMasterKeyId", "")
    original_resource.display_name = cloudformation_json["Properties"].get("DisplayName", "")
    return original_resource


@wrap(CloudFormationBackend, "delete_stack")
def _delete_once(original: Function, backend: Any, name_or_stack_id: str) -> None:
    """Honour termination protection, and clear the outputs: reading those of a deleted stack recreates resources."""
    stack = backend.get_stack(name_or_stack_id)
    if stack.enable_termination_protection:
        raise ValidationError(message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
    original(backend, name_or_stack_id)
    stack.output_map._output_json_map = {}


@add(CloudFormationResponse, "update_termination_protection")
def _update_termination_protection(response: CloudFormationResponse) -> ActionResult:
    """Answer UpdateTerminationProtection."""
    stack = response.cloudformation_backend.get_stack(response._get_param("StackName"))
    stack.enable_termination_protection = response._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


@add(NatGateway, "delete")
def _delete_nat_gateway(gateway: NatGateway, *where: str) -> None:
    """Delete a stack's NAT gateway with its network interface, which would otherwise keep the VPC in use."""
    gateway.ec2_backend.delete_nat_gateway(gateway.id)
    gateway.ec2_backend.delete_network_interface(gateway._eni.id)


@add(RouteTable, "delete")
def _delete_route_table(table: RouteTable, *where: str) -> None:
    """Delete a stack's route table, which would otherwise keep the VPC in use."""
    table.ec2_backend.delete_route_table(table.id)


@wrap(Role, "delete_from_cloudformation_json")
def _detach_policies(original: Function, cls: type[Role], name: str, body: Any, *where: str) -> None:
    """Detach a role's managed policies before a stack deletes the role."""
    account, region = where
    backend = iam_backends[account][get_partition(region)]
    for arn in list(backend.get_role(name).managed_policies):
        backend.detach_role_policy(arn, name)
    original(cls, name, body, account, region)
