"""Does its role allow what a deployed program asks of AWS? The emulator judges each call, and refuses as IAM would.

A program's access key names its role. Who comes with another key is the account's owner, and allowed all.
Judged are the role's own and attached policies. The policies of resources are not: a bucket's and a key's only narrow
what a role has here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache, wraps
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import unescape

from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.iam.models import Role, iam_backends
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response

from emulators.aws.calls import needs, of_objects, of_uri
from emulators.aws.iam_policies import Call, Statement, allowed
from emulators.aws.machine import ACCOUNT, ROLE_KEY, Machine

# Of the objects that one call deletes.
KEY = re.compile("<Key>(.*?)</Key>")
CREDENTIAL = re.compile(rf"Credential={ROLE_KEY}([^/]+)/\d+/[^/]+/(\w+)/")

_machines: list[Machine] = []


class DeniedError(ServiceException):
    """A call that is refused."""

    code = "AccessDeniedException"


def require(role: str, calls: Iterable[Call]) -> None:
    """Raises DeniedError with the first call that the role does not allow."""
    statements = statements_of(role)
    _note("judged", role)
    for call in calls:
        if not allowed(statements, call):
            raise _denied(
                f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{role}/emulator is not authorized to perform: "
                f"{call.action} on resource: {call.resource} because no identity-based policy allows it"
            )


def _denied(text: str) -> DeniedError:
    """The refusal, noted for who asks the machine."""
    _note("refused", text)
    return DeniedError(text)


def _note(kind: str, line: str) -> None:
    for machine in _machines:
        machine.note(kind, line)


def statements_of(name: str) -> list[Statement]:
    """Of all policies that a role has."""
    role: Role = iam_backends[ACCOUNT]["aws"].get_role(name)
    versions = [item for policy in role.managed_policies.values() for item in policy.versions]
    attached = [item.document for item in versions if item.is_default]
    return [item for text in (*role.policies.values(), *attached) for item in _parsed(text)]


@lru_cache
def _parsed(text: str) -> list[Statement]:
    found = json.loads(text)["Statement"]
    return found if isinstance(found, list) else [found]


def role_of(arn: str) -> str:
    """A role's name by its ARN."""
    return arn.rsplit("/", 1)[-1]


def judge(machine: Machine) -> None:
    """Has moto judge the calls that come with a role's key, and note on the machine what it refuses."""
    _machines.append(machine)
    # Services have no shape for it in their models, and answer with it.
    warnings.filterwarnings("ignore", message=r"Exception\(DeniedError\)")
    act = BaseResponse.call_action

    @wraps(act)
    def call_action(self: BaseResponse) -> Any:
        asked = CREDENTIAL.search(self.headers.get("Authorization", ""))
        if asked and not isinstance(self, S3Response):
            role, service = asked.groups()
            self.parse_parameters(self.normalized_request)
            try:
                require(role, needs(service, self._get_action(), self.params))
            except ValueError as unknown:
                return self.serialized(ActionResult(_denied(str(unknown))))
            except DeniedError as denied:
                return self.serialized(ActionResult(denied))
        return act(self)

    def judge_objects(self: S3Response, bucket_name: str | None = None, key_name: str | None = None) -> None:
        asked = CREDENTIAL.search(self.headers.get("Authorization", ""))
        if asked:
            try:
                require(asked[1], _of_request(self, bucket_name, key_name))
            except DeniedError as denied:
                raise S3ClientError("AccessDenied", str(denied)) from denied

    BaseResponse.call_action = call_action
    ActionAuthenticatorMixin._authenticate_and_authorize_s3_action = judge_objects


def _of_request(request: S3Response, bucket: str | None, key: str | None) -> Iterator[Call]:
    """What a request to S3 takes: of all buckets, one, an object, many that it deletes, or one that it copies."""
    action = f"s3:{request.data['Action'].replace('HeadBucket', 'ListBucket')}"
    if bucket is None:
        yield Call("s3:ListAllMyBuckets")
    elif action == "s3:DeleteObject" and key is None:
        for found in KEY.findall(request.body.decode()):
            yield from of_objects(action, bucket, unescape(found))
    else:
        yield from of_objects(action, bucket, key)
    if source := request.headers.get("x-amz-copy-source"):
        yield from of_uri("s3:GetObject", f"s3://{unquote(source).lstrip('/')}")
