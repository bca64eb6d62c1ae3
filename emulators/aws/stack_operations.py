"""Creation, update and deletion of stacks as CloudFormation does them: in order of dependencies, with rollback.

A failed creation deletes what it created and ends as ROLLBACK_COMPLETE. A failed update restores the former template
and ends as UPDATE_ROLLBACK_COMPLETE. An update creates replacements of resources first, and deletes the old ones last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Event, Stack, cloudformation_backends
from moto.cloudformation.parsing import ResourceMap
from moto.core.exceptions import ServiceException

from emulators.aws import runtime
from emulators.aws.exports import remove_exports, replace_exports
from emulators.aws.faults import Fault
from emulators.aws.patches import Function, wrap
from emulators.aws.template_references import in_order, is_replaced, references

# Deletion policies that retain a resource when its stack or its part of the template is deleted. RetainExceptOnCreate
# does not retain it when the operation that created it is rolled back.
RETAINED = ("Retain", "RetainExceptOnCreate")


class ResourceFailedError(Exception):
    """A resource cannot be created or updated."""

    def __init__(self, logical_id: str, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.logical_id, self.kind = logical_id, kind


@wrap(parsing, "parse_and_create_resource")
@wrap(parsing, "parse_and_update_resource")
def _name_failed_resource(original: Function, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """Create or update a resource. Raise ResourceFailedError if it fails, or if a test injected its failure."""
    kind = body["Type"]
    if runtime.take_fault(Fault.RESOURCE_FAILS, lambda at: at in (logical_id, kind)):
        raise ResourceFailedError(logical_id, kind, "Resource creation cancelled by an injected fault")
    try:
        return original(logical_id, body, resources, **where)
    except ResourceFailedError:
        raise  # the error names the resource that this one depends on
    except Exception as error:
        raise ResourceFailedError(logical_id, kind, _reason(error)) from error


@wrap(CloudFormationBackend, "create_stack")
def _create_or_roll_back(original: Function, backend: Any, name: str, *arguments: Any, **named: Any) -> Stack:
    """Create a stack. If a resource fails, delete the created resources, except those with the policy Retain."""
    existed = {stack.stack_id for stack in backend.stacks.values()}
    try:
        created: Stack = original(backend, name, *arguments, **named)
    except Exception as error:
        failed = [stack for stack_id, stack in backend.stacks.items() if stack_id not in existed]
        if not failed:  # the template itself is wrong
            raise _as_answer(error) from error
        created = failed[0]
        _roll_back_creation(backend, created, error)
    return created


def _roll_back_creation(backend: CloudFormationBackend, stack: Stack, error: Exception) -> None:
    resources = stack.resource_map
    _report(stack, "CREATE_FAILED", error)
    stack._add_stack_event("ROLLBACK_IN_PROGRESS", f"{_failed(error)} failed to create. Rollback requested by user.")
    remove_exports(backend, stack.stack_id)
    created = {key: body for key, body in resources._resource_json_map.items() if key in resources._parsed_resources}
    gone = {key: body for key, body in created.items() if body.get("DeletionPolicy") != "Retain"}
    left = _delete_all(resources, [(resources._parsed_resources.pop(key), body) for key, body in gone.items()])
    _forget_resources(stack)
    _end(stack, "ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", left)


@wrap(Stack, "update")
def _update_or_roll_back(original: Function, stack: Stack, *arguments: Any, **named: Any) -> None:
    """Update a stack. If a resource fails, or an export that is in use would change, restore the former template."""
    before = stack.template, stack.template_dict
    try:
        original(stack, *arguments, **named)
    except Exception as error:
        stack.template, stack.template_dict = before
        stack.output_map = stack._create_output_map()
        _report(stack, "UPDATE_FAILED", error)
        stack._add_stack_event("UPDATE_ROLLBACK_IN_PROGRESS", _reason(error))
        _end(stack, "UPDATE_ROLLBACK_COMPLETE")


@wrap(ResourceMap, "update")
def _update_resources(
    _original: Function, resources: ResourceMap, template: dict[str, Any], parameters: dict[str, Any] | None = None
) -> None:
    """Apply a template and its parameters to the resources of a stack, or raise and leave them as they were."""
    update = Update(resources, template, parameters)
    try:
        update.apply()
    except Exception:
        update.roll_back()
        raise
    update.clean_up()


class Update:
    """One update of a stack's resources."""

    def __init__(
        self, resources: ResourceMap, template: dict[str, Any], parameters: dict[str, Any] | None = None
    ) -> None:
        self._resources = resources
        self._backend = cloudformation_backends[resources._account_id][resources._region_name]
        resources.cross_stack_resources = self._backend.exports
        self._before = resources._template, resources.input_parameters
        self._after = template, parameters or resources.input_parameters
        self._old, self._new = (item.get("Resources", {}) for item in (self._before[0], template))
        self._former = dict(resources._parsed_resources)
        self._replaced: list[str] = []
        self._modified: list[str] = []

    def apply(self) -> None:
        """Create, replace and modify what differs, each after what it refers to. Raise the first failure."""
        before = dict(self._resources.resolved_parameters)
        self._define(*self._after)
        changed = {name for name, value in self._resources.resolved_parameters.items() if before.get(name) != value}
        for name in in_order(self._new, self._new):
            if name not in self._old:
                self._resources[name]
            elif self._old[name] != self._new[name] or changed & set(references(self._new[name])):
                self._change(name, changed)
        replace_exports(self._backend, self._resources, self._after[0])

    def _change(self, name: str, changed: set[str]) -> None:
        """Update or replace a resource. What refers to a replaced resource changes too."""
        if is_replaced(self._old[name], self._new[name], changed):
            self._resources._parsed_resources.pop(name, None)
            self._replaced.append(name)
            changed.add(name)
            self._resources[name]
        else:
            self._modified.append(name)
            self._modify(name, self._new)

    def _modify(self, name: str, bodies: dict[str, Any]) -> None:
        resources = self._resources
        where = {"account_id": resources._account_id, "region_name": resources._region_name}
        resources._parsed_resources[name] = parsing.parse_and_update_resource(name, bodies[name], resources, **where)

    def roll_back(self) -> None:
        """Restore the former resources, and delete those that the update created."""
        parsed = self._resources._parsed_resources
        made = [name for name in self._new if name in parsed and (name in self._replaced or name not in self._old)]
        gone = [(parsed.pop(name), self._new[name]) for name in made]
        parsed.update({name: self._former[name] for name in self._replaced if name in self._former})
        self._define(*self._before)
        for name in in_order(self._old, self._modified):
            self._modify(name, self._old)
        _delete_all(self._resources, [item for item in gone if item[1].get("DeletionPolicy") != "Retain"])

    def clean_up(self) -> None:
        """Delete what the new template lacks and what was replaced, unless their policies retain it."""
        removed = [name for name in self._old if name not in self._new]
        gone = [(name, self._old[name].get("DeletionPolicy")) for name in removed]
        gone += [(name, self._old[name].get("UpdateReplacePolicy")) for name in self._replaced]
        for name in removed:
            self._resources._parsed_resources.pop(name, None)
        former = [(self._former.get(name), self._old[name]) for name, policy in gone if policy not in RETAINED]
        _delete_all(self._resources, former)

    def _define(self, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Set the template and the parameters of the resources, without changing a resource."""
        resources = self._resources
        resources._template, resources._resource_json_map = template, template.get("Resources", {})
        resources.input_parameters = parameters
        resources.load_mapping()
        resources.load_parameters()
        resources.load_conditions()


@wrap(CloudFormationBackend, "delete_stack")
def _delete_or_fail(original: Function, backend: CloudFormationBackend, name_or_stack_id: str) -> None:
    """Delete a stack. If one of its resources cannot be deleted, the stack stays, as DELETE_FAILED."""
    stack = backend.get_stack(name_or_stack_id)
    try:
        original(backend, name_or_stack_id)
    except ServiceException:
        raise
    except Exception as error:
        backend.stacks[stack.stack_id] = stack
        _end(stack, "DELETE_FAILED", [error])


@wrap(ResourceMap, "delete")
def _delete_resources(_original: Function, resources: ResourceMap) -> None:
    """Delete a stack's resources except those that its template retains. Raise for one that cannot be deleted."""
    gone = [
        (resources._parsed_resources.pop(name), body)
        for name, body in resources._resource_json_map.items()
        if body.get("DeletionPolicy") not in RETAINED and name in resources._parsed_resources
    ]
    if left := _delete_all(resources, gone):
        raise left[0]


def _delete_all(resources: ResourceMap, found: Iterable[tuple[Any, Any]]) -> list[Exception]:
    """Delete resources, the newest first, and retry those that another one still used. Return the last errors."""
    remaining = [(resource, body) for resource, body in found if resource is not None][::-1]
    while remaining:
        failed, errors = [], []
        for resource, body in remaining:
            try:
                resources._delete_resource(resource, body)
            except Exception as error:
                failed.append((resource, body))
                errors.append(error)
        if len(failed) == len(remaining):
            return errors
        remaining = failed
    return []


def _forget_resources(stack: Stack) -> None:
    """Clear the resources and outputs that moto would create again when the stack is described."""
    stack.output_map._output_json_map = {}
    stack.resource_map._resource_json_map = {}


def _report(stack: Stack, status: str, error: Exception) -> None:
    """Add the event of the resource that failed; the CLI prints its reason."""
    if isinstance(error, ResourceFailedError):
        stack.events.append(
            Event(
                stack_id=stack.stack_id,
                stack_name=stack.name,
                logical_resource_id=error.logical_id,
                physical_resource_id="",
                resource_type=error.kind,
                resource_status=status,
                resource_status_reason=_reason(error),
                resource_properties=None,
            )
        )
    else:
        stack._add_stack_event(status, _reason(error))


def _failed(error: Exception) -> str:
    return f"The resource {error.logical_id}" if isinstance(error, ResourceFailedError) else _reason(error)


def _reason(error: Exception) -> str:
    """Return the message of an error; moto's own errors put their code before it."""
    return str(error.message if isinstance(error, ServiceException) else error) or type(error).__name__


def _end(stack: Stack, status: str, errors: Iterable[Exception] = ()) -> None:
    stack.status = status
    stack._add_stack_event(status, "; ".join(map(_reason, errors)) or None)


def _as_answer(error: Exception) -> Exception:
    """Return an error that moto answers with its reason. For other errors, moto answers 500 and the CLI retries."""
    return error if isinstance(error, ServiceException) else ValidationError(message=f"{type(error).__name__}: {error}")
