"""REST operations of services that moto lacks, next to moto's own.

``operation`` registers one. A request that is signed for its service, with its method and path, gets its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from werkzeug.wrappers import Request, Response

from emulators.aws.patches import Function, wrap

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/[^/]+/([\w-]+)/")
Parameters = Mapping[str, Any]
Operation = Callable[[Parameters], dict[str, Any]]
_operations: dict[tuple[str, str, str], tuple[str, Operation]] = {}


class RestError(Exception):
    """An error of AWS: its code and its message."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True)
class Call:
    """A call: the access key and the service of its signature, the operation and its parameters."""

    access_key: str
    service: str
    operation: str
    parameters: Parameters


def operation(service: str, name: str, method: str, path: str) -> Callable[[Operation], Operation]:
    """Return a decorator that makes a function answer an operation. ``service`` is the name that requests sign for."""

    def decorate(function: Operation) -> Operation:
        _operations[service, method, path] = (name, function)
        return function

    return decorate


def answer(call: Call, function: Operation) -> dict[str, Any]:
    """Return the answer of a call. Raise RestError for an error of AWS."""
    return function(call.parameters)


@wrap(DomainDispatcherApplication, "get_application")
def _application(original: Function, application: DomainDispatcherApplication, environ: dict[str, Any]) -> Any:
    """Return what answers a request: an operation of this module, or moto."""
    signed = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    place = (signed[2] if signed else "", environ["REQUEST_METHOD"], environ["PATH_INFO"].rstrip("/"))
    if place not in _operations or signed is None:
        return original(application, environ)
    name, function = _operations[place]
    body = Request(environ).get_data()
    call = Call(signed[1], signed[2], name, json.loads(body) if body else {})
    try:
        return Response(json.dumps(answer(call, function)), mimetype="application/json")
    except RestError as error:
        headers = {"x-amzn-errortype": error.code}
        return Response(json.dumps({"message": str(error)}), error.status, headers, mimetype="application/json")
