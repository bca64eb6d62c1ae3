"""Deliveries of a topic to queues and functions: made only if the policies of the target and of its key allow them.

SNS drops a message that it may not deliver, and its publisher does not notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from moto.awslambda.models import lambda_backends
from moto.kms.models import Key, kms_backends
from moto.sns.models import Subscription
from moto.sqs.models import sqs_backends

from emulators.aws import runtime
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.iam_policies import Permission
from emulators.aws.patches import Function, wrap
from emulators.aws.resource_policies import Caller, refusal, sent_keys

SNS = Caller("sns.amazonaws.com")
Guarded = tuple[str, str, Any]


@wrap(Subscription, "publish")
def _deliver_if_allowed(
    original: Function, subscription: Subscription, message: str, message_id: str, **more: Any
) -> None:
    """Deliver a message, or drop it and record which policy does not allow it."""
    matcher = subscription._filter_policy_matcher
    if matcher is not None and not matcher.matches(more.get("message_attributes"), message):
        return
    values = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": subscription.topic_arn}
    for action, resource, policy in _needed(subscription):
        context = {key: (values[key],) for key in sent_keys(SNS.principal, action)}
        if reason := refusal(SNS, Permission(action, resource, context), _parsed(policy)):
            runtime.record_dropped(f"{SNS.principal} needs {action} on {resource} to deliver a message: {reason}")
            return
    original(subscription, message, message_id, **more)


def _needed(subscription: Subscription) -> Iterator[Guarded]:
    """Yield what a delivery needs: an action, the resource, and the policy of the resource."""
    if subscription.protocol == "lambda":
        function = lambda_backends[ACCOUNT][REGION].get_function(subscription.endpoint)
        yield "lambda:InvokeFunction", function.function_arn, {"Statement": function.policy.statements}
    elif subscription.protocol == "sqs":
        queue = sqs_backends[ACCOUNT][REGION].get_queue(subscription.endpoint.rsplit(":", 1)[-1])
        yield "sqs:SendMessage", subscription.endpoint, queue.policy
        if name := queue.kms_master_key_id:
            backend = kms_backends[ACCOUNT][REGION]
            key: Key = backend.keys[backend.get_key_id(name)]
            for action in ("kms:Decrypt", "kms:GenerateDataKey"):
                yield action, key.arn, key.policy


def _parsed(policy: Any) -> Any:
    return json.loads(policy) if isinstance(policy, str) else policy
