"""The deployed resources of all stacks, with every reference resolved, as the emulator's process answers them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

PATH = "/moto-api/data.json"


@dataclass(frozen=True)
class DeployedResource:
    """A resource of a stack: its resolved properties, its physical id and its ARN, which is empty if it has none."""

    stack: str
    logical_id: str
    kind: str
    properties: dict[str, Any]
    physical_id: str
    arn: str

    def __str__(self) -> str:
        """Return the type and name for a message, such as Alarm Barflow-dev-HostDown."""
        return f"{self.kind.rsplit('::', 1)[-1]} {self.physical_id.rsplit('/', 1)[-1].rsplit(':', 1)[-1]}"


def deployed_resources(url: str) -> list[DeployedResource]:
    """Return the resources of all stacks of the emulator at this address."""
    with urllib.request.urlopen(f"{url}{PATH}") as answer:  # noqa: S310
        return [DeployedResource(**item) for item in json.load(answer)]


def serve_deployed_resources() -> None:
    """Make the emulator's process answer its deployed resources, in the place of moto's own data."""
    from moto.moto_api._internal.responses import MotoAPIResponse

    from emulators.aws.patches import Function, wrap

    @wrap(MotoAPIResponse, "model_data")
    def _answer(_original: Function, *arguments: Any) -> tuple[int, dict[str, str], str]:
        found = [asdict(item) for item in _resources()]
        return 200, {"Content-Type": "application/json"}, json.dumps(found, default=_as_text)


def _resources() -> Iterator[DeployedResource]:
    from moto.cloudformation.models import cloudformation_backends
    from moto.cloudformation.parsing import clean_json

    from emulators.aws.account import ACCOUNT, REGION

    for stack in list(cloudformation_backends[ACCOUNT][REGION].stacks.values()):
        for logical_id, body in stack.resource_map._resource_json_map.items():
            resource = stack.resource_map._parsed_resources.get(logical_id)
            if resource is not None:
                properties = clean_json(body.get("Properties", {}), stack.resource_map)
                identifier = str(getattr(resource, "physical_resource_id", logical_id))
                yield DeployedResource(
                    stack.name, logical_id, body["Type"], properties, identifier, _arn(resource, identifier)
                )


def _arn(resource: Any, identifier: str) -> str:
    """Return the ARN of a resource, from its attribute for templates or moto's own."""
    if identifier.startswith("arn:"):
        return identifier
    with suppress(Exception):  # moto raises another error for each type that has no such attribute
        found = resource.get_cfn_attribute("Arn")
        if str(found).startswith("arn:"):
            return str(found)
    return str(getattr(resource, "arn", ""))


def _as_text(value: Any) -> str:
    """Return an object of moto, which a template refers to, as its physical id."""
    return str(getattr(value, "physical_resource_id", value))
