"""Exports of stacks: one that another stack imports can be neither changed nor removed.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-exports.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.parsing import Export, OutputMap, ResourceMap, clean_json

from emulators.aws.patches import Function, wrap


def exports_of(backend: CloudFormationBackend, stack_id: str) -> dict[str, str]:
    """Return the values of a stack's exports, by name."""
    return {name: export.value for name, export in backend.exports.items() if export.exporting_stack_id == stack_id}


def replace_exports(backend: CloudFormationBackend, resources: ResourceMap, template: Mapping[str, Any]) -> None:
    """Set the exports of a stack from a template. Raise ValidationError if an export in use would change."""
    after = {export.name: export.value for export in OutputMap(resources, dict(template), resources.stack_id).exports}
    for name, value in exports_of(backend, resources.stack_id).items():
        if after.get(name) != value:
            _require_unused(backend, name, "deleted" if name not in after else "updated")
    remove_exports(backend, resources.stack_id)
    for name, value in after.items():
        if name in backend.exports:
            raise ValidationError(message=f"Export with name {name} is already exported by another stack")
        backend.exports[name] = Export(resources.stack_id, name, value)


def remove_exports(backend: CloudFormationBackend, stack_id: str) -> None:
    """Remove the exports of a stack."""
    for name in exports_of(backend, stack_id):
        del backend.exports[name]


def _require_unused(backend: CloudFormationBackend, name: str, done: str) -> None:
    users = [stack.name for stack in backend.stacks.values() if name in _imports(stack)]
    if users:
        raise ValidationError(message=f"Export {name} cannot be {done} as it is in use by {' and '.join(users)}")


def _imports(stack: Stack) -> set[str]:
    """Return the names of the exports that a stack imports."""
    bodies = stack.resource_map._resource_json_map
    outputs = stack.output_map._output_json_map or {}
    return {str(clean_json(name, stack.resource_map)) for name in _imported([bodies, outputs])}


def _imported(value: Any) -> Iterator[Any]:
    """Yield the argument of every Fn::ImportValue in a part of a template."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from [item] if key == "Fn::ImportValue" else _imported(item)
    elif isinstance(value, list):
        for item in value:
            yield from _imported(item)


@wrap(CloudFormationBackend, "delete_stack")
def _keep_used_exports(original: Function, backend: CloudFormationBackend, name_or_stack_id: str) -> None:
    """Delete a stack, unless another stack imports one of its exports. Then an event has the reason."""
    stack = backend.get_stack(name_or_stack_id)
    try:
        for name in exports_of(backend, stack.stack_id):
            _require_unused(backend, name, "deleted")
    except ValidationError as used:
        stack._add_stack_event(stack.status, used.message)
        return
    original(backend, name_or_stack_id)
