"""Authorization of API calls: each call of a deployed program needs its role's policies to allow it.

The access key of a deployed program names its role. A call with any other key comes from the owner of the account, who
may do everything. Inline and attached policies of the role are evaluated. Resource policies are not: those of a bucket
or a key only restrict what the role allows here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import unescape

from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.iam.models import Role, iam_backends
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response

from emulators.aws import rest_apis, runtime
from emulators.aws.account import ACCOUNT, ROLE_KEY
from emulators.aws.iam_policies import Permission, Statement, is_allowed
from emulators.aws.patches import Function, wrap
from emulators.aws.permissions import on_object, on_uri, required_permissions

# The objects that one DeleteObjects request deletes.
KEY = re.compile("<Key>(.*?)</Key>")
CREDENTIAL = re.compile(rf"Credential={ROLE_KEY}([^/]+)/\d+/[^/]+/(\w+)/")


class AccessDeniedError(ServiceException):
    """A call that the role's policies do not allow."""

    code = "AccessDeniedException"


# moto warns about an error that is not in a service's own model; this one is in none.
warnings.filterwarnings("ignore", message=rf"Exception\({AccessDeniedError.__name__}\)")


def authorize(role: str, permissions: Iterable[Permission]) -> None:
    """Raise AccessDeniedError for the first permission that the role's policies do not allow, and record it."""
    statements = statements_of(role)
    runtime.current().record_evaluation(role)
    for permission in permissions:
        if not is_allowed(statements, permission):
            raise _denied(
                f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{role}/emulator is not authorized to perform: "
                f"{permission.action} on resource: {permission.resource} because no identity-based policy allows the "
                f"{permission.action} action"
            )


def statements_of(name: str) -> list[Statement]:
    """Return the statements of every policy of a role."""
    role: Role = iam_backends[ACCOUNT]["aws"].get_role(name)
    versions = [item for policy in role.managed_policies.values() for item in policy.versions]
    attached = [item.document for item in versions if item.is_default]
    return [item for text in (*role.policies.values(), *attached) for item in _parsed(text)]


def role_name(arn: str) -> str:
    """Return the name of the role with this ARN."""
    return arn.rsplit("/", 1)[-1]


@lru_cache
def _parsed(text: str) -> list[Statement]:
    found = json.loads(text)["Statement"]
    return found if isinstance(found, list) else [found]


def _denied(text: str) -> AccessDeniedError:
    runtime.current().record_denial(text)
    return AccessDeniedError(text)


@wrap(BaseResponse, "call_action")
def _authorize_call(original: Function, response: BaseResponse) -> Any:
    """Answer a call only if the role allows it. S3 has another patch, because its requests do not name an operation."""
    credential = CREDENTIAL.search(response.headers.get("Authorization", ""))
    if credential and not isinstance(response, S3Response):
        role, service = credential.groups()
        response.parse_parameters(response.normalized_request)
        try:
            authorize(role, required_permissions(service, response._get_action(), response.params))
        except ValueError as unlisted:
            return response.serialized(ActionResult(_denied(str(unlisted))))
        except AccessDeniedError as denied:
            return response.serialized(ActionResult(denied))
    return original(response)


@wrap(ActionAuthenticatorMixin, "_authenticate_and_authorize_s3_action")
def _authorize_s3_call(
    _original: Function, response: S3Response, bucket_name: str | None = None, key_name: str | None = None
) -> None:
    """Answer a call of S3 only if the role allows it."""
    credential = CREDENTIAL.search(response.headers.get("Authorization", ""))
    if credential:
        try:
            authorize(credential[1], _s3_permissions(response, bucket_name, key_name))
        except AccessDeniedError as denied:
            raise S3ClientError("AccessDenied", str(denied)) from denied


def _s3_permissions(request: S3Response, bucket: str | None, key: str | None) -> Iterator[Permission]:
    """Yield what a request to S3 needs: on all buckets, one bucket, one object, many to delete, or one to copy."""
    action = f"s3:{request.data['Action'].replace('HeadBucket', 'ListBucket')}"
    if bucket is None:
        yield Permission("s3:ListAllMyBuckets")
    elif action == "s3:DeleteObject" and key is None:
        for found in KEY.findall(request.body.decode()):
            yield from on_object(action, bucket, unescape(found))
    else:
        yield from on_object(action, bucket, key)
    if source := request.headers.get("x-amz-copy-source"):
        yield from on_uri("s3:GetObject", f"s3://{unquote(source).lstrip('/')}")


@wrap(rest_apis, "answer")
def _authorize_rest_call(original: Function, call: rest_apis.Call, function: rest_apis.Operation) -> Any:
    """Answer a REST call that moto lacks only if the role allows it."""
    if call.access_key.startswith(ROLE_KEY):
        try:
            role = call.access_key.removeprefix(ROLE_KEY)
            authorize(role, required_permissions(call.service, call.operation, call.parameters))
        except AccessDeniedError as denied:
            raise rest_apis.RestError("AccessDeniedException", str(denied), 403) from denied
    return original(call, function)
