"""Calls from one deployed service to another, each evaluated against the policies at both ends.

An arrow is such a call: an alarm publishes to a topic, a topic sends to a queue, a schedule invokes a function with its
role, a service uses the key of its target, and so on. The condition keys that each service sends are in
service_requests.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.deployed import DeployedResource
from emulators.aws.iam_policies import Permission, Statement
from emulators.aws.resource_policies import Caller, refusal, sent_keys, unconditioned

Document = Mapping[str, Any]
KEY_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey")
# CloudWatch Logs also encrypts with the key itself.
LOG_KEY_ACTIONS = (*KEY_ACTIONS, "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo")
# The property that names the role of a resource, and the service that assumes it.
ROLES = {
    "AWS::EC2::FlowLog": ("DeliverLogsPermissionArn", "vpc-flow-logs.amazonaws.com"),
    "AWS::Glue::Crawler": ("Role", "glue.amazonaws.com"),
    "AWS::Glue::Job": ("Role", "glue.amazonaws.com"),
    "AWS::IAM::InstanceProfile": ("Roles", "ec2.amazonaws.com"),
    "AWS::Lambda::Function": ("Role", "lambda.amazonaws.com"),
    "AWS::RDS::DBInstance": ("MonitoringRoleArn", "monitoring.rds.amazonaws.com"),
}
DELIVERIES = {"sns": "sns:Publish", "sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction"}


@dataclass(frozen=True)
class Arrow:
    """One call of a service or role to a resource, and the policy of that resource."""

    source: str
    target: str
    caller: Caller
    permission: Permission
    policy: Document | None

    def problem(self) -> str | None:
        """Return which arrow is denied and why, or None if it is allowed."""
        reason = refusal(self.caller, self.permission, self.policy)
        if reason is None:
            return None
        sent = ", ".join(sorted(self.permission.context)) or "no condition key"
        who = self.caller.principal.rsplit("/", 1)[-1]
        return f"{self.source} -> {self.target}: {who} needs {self.permission.action} and sends {sent}: {reason}"


def problems(resources: Iterable[DeployedResource]) -> list[str]:
    """Return a line per denied arrow, and per policy that allows a service without a condition on the source."""
    deployed = Deployed(resources)
    denied = (arrow.problem() for arrow in deployed.arrows())
    return sorted({*filter(None, denied), *deployed.unconditioned()})


class Deployed:
    """The deployed resources, with their policies."""

    def __init__(self, resources: Iterable[DeployedResource]) -> None:
        self._resources = list(resources)
        self._by_name = {name: item for item in self._resources for name in (item.arn, item.physical_id) if name}
        self._policies: dict[str, Document] = {}
        self._statements: dict[str, list[Statement]] = {}
        for item in self._resources:
            self._read_policies(item)

    def _read_policies(self, item: DeployedResource) -> None:
        given = item.properties
        if item.kind in ("AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"):
            for name in given.get("Topics", given.get("Queues")):
                self._policies[self._arn(name)] = given["PolicyDocument"]
        elif item.kind == "AWS::S3::BucketPolicy":
            self._policies[self._arn(given["Bucket"])] = given["PolicyDocument"]
        elif item.kind == "AWS::KMS::Key":
            self._policies[item.arn] = given["KeyPolicy"]
        elif item.kind == "AWS::SecretsManager::ResourcePolicy":
            self._policies[given["SecretId"]] = given["ResourcePolicy"]
        elif item.kind == "AWS::Lambda::Permission":
            function = self._arn(given["FunctionName"])
            document = self._policies.setdefault(function, {"Statement": []})
            document["Statement"].append(_invocation(given, function))
        elif item.kind == "AWS::IAM::Role":
            self._policies[item.arn] = given["AssumeRolePolicyDocument"]
            for policy in given.get("Policies", ()):
                self._allow(item.physical_id, policy["PolicyDocument"])
        elif item.kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            for role in given.get("Roles", ()):
                self._allow(role, given["PolicyDocument"])

    def _allow(self, role: str, document: Document) -> None:
        found = document["Statement"]
        self._statements.setdefault(role, []).extend(found if isinstance(found, list) else [found])

    def arrows(self) -> Iterator[Arrow]:
        """Yield every arrow. Raise ValueError for an arrow to a service that this module does not know."""
        for item in self._resources:
            if item.kind in ROLES:
                name, service = ROLES[item.kind]
                roles = item.properties.get(name, [])
                for role in [roles] if isinstance(roles, str) else roles:
                    yield self._assumption(item, service, role)
            if item.kind in ARROWS:
                yield from ARROWS[item.kind](self, item)

    def unconditioned(self) -> Iterator[str]:
        """Yield a line per policy of a resource that allows a service without a condition on the source."""
        for name, document in self._policies.items():
            if ":role/" not in name:
                for service in unconditioned(document):
                    yield f"the policy of {self._title(name)} allows {service} without a condition on the source"

    def alarm(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of an alarm; an action on EC2 needs no policy."""
        for name in ("AlarmActions", "OKActions", "InsufficientDataActions"):
            for target in item.properties.get(name, ()):
                if ":ec2:" not in target:
                    yield from self._delivery(item, self._service(item, "cloudwatch.amazonaws.com"), target)

    def rule(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of an EventBridge rule to its targets and their dead-letter queues.

        The rule calls a target with the target's role, if it has one. It calls a dead-letter queue as the service.
        """
        service = self._service(item, "events.amazonaws.com")
        for target in item.properties.get("Targets", ()):
            if role := target.get("RoleArn"):
                yield self._assumption(item, "events.amazonaws.com", role)
            yield from self._delivery(item, self._role(role) if role else service, target["Arn"])
            if failed := target.get("DeadLetterConfig", {}).get("Arn"):
                yield from self._delivery(item, service, failed)

    def budget(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of a budget to topics."""
        for notification in item.properties.get("NotificationsWithSubscribers", ()):
            for subscriber in notification["Subscribers"]:
                if subscriber["SubscriptionType"] == "SNS":
                    arn = f"arn:aws:budgets::{ACCOUNT}:budget/{item.properties['Budget'].get('BudgetName', item.arn)}"
                    service = self._service(item, "budgets.amazonaws.com", arn)
                    yield from self._delivery(item, service, subscriber["Address"])

    def subscription(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of a topic to its subscriber and to the queue of undelivered messages."""
        given, topic = item.properties, self._by_name[item.properties["TopicArn"]]
        targets = [given["Endpoint"]] if given["Protocol"] in ("sqs", "lambda") else []
        redrive = given.get("RedrivePolicy") or {}
        redrive = json.loads(redrive) if isinstance(redrive, str) else redrive
        targets += [redrive["deadLetterTargetArn"]] if redrive else []
        for target in targets:
            yield from self._delivery(topic, self._service(topic, "sns.amazonaws.com"), target)

    def schedule(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of a schedule. It calls its target and its dead-letter queue with its role."""
        target = item.properties["Target"]
        group = item.properties.get("GroupName", "default")
        arn = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{group}"
        yield self._assumption(item, "scheduler.amazonaws.com", target["RoleArn"], arn)
        failed = target.get("DeadLetterConfig", {}).get("Arn")
        for name in filter(None, (target["Arn"], failed)):
            yield from self._delivery(item, self._role(target["RoleArn"]), name)

    def function(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrow of a function to its dead-letter queue, with its role."""
        if target := item.properties.get("DeadLetterConfig", {}).get("TargetArn"):
            yield from self._delivery(item, self._role(item.properties["Role"]), target)

    def bucket(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrow of a bucket to the bucket of its access logs."""
        logging = item.properties.get("LoggingConfiguration", {})
        if "DestinationBucketName" in logging:
            bucket, prefix = self._arn(logging["DestinationBucketName"]), logging.get("LogFilePrefix", "")
            call = self._service(item, "logging.s3.amazonaws.com")
            yield self._arrow(item, bucket, call, "s3:PutObject", f"{bucket}/{prefix}any")

    def log_group(self, item: DeployedResource) -> Iterator[Arrow]:
        """Yield the arrows of CloudWatch Logs to the key of a log group."""
        if key := item.properties.get("KmsKeyId"):
            arn = item.arn.removesuffix(":*")
            for action in LOG_KEY_ACTIONS:
                yield self._arrow(item, key, self._service(item, f"logs.{REGION}.amazonaws.com", arn), action)

    def _delivery(self, item: DeployedResource, call: Call, target: str) -> Iterator[Arrow]:
        """Yield the arrow to a topic, queue or function, and the arrows to the key that encrypts the target."""
        service = target.split(":")[2]
        if service not in DELIVERIES:
            raise ValueError(f"{item} calls {target}, and emulators/aws/arrows.py does not know {service}: add it")
        yield self._arrow(item, target, call, DELIVERIES[service])
        properties = self._find(target).properties
        if service in ("sns", "sqs") and (key := properties.get("KmsMasterKeyId")):
            for action in KEY_ACTIONS:
                yield self._arrow(item, self._arn(key), call, action, via=service)

    def _arrow(
        self, item: DeployedResource, target: str, call: Call, action: str, resource: str = "", *, via: str = ""
    ) -> Arrow:
        context = call.context(action)
        if via and call.caller.is_role:
            context["kms:ViaService"] = (f"{via}.{REGION}.amazonaws.com",)
        permission = Permission(action, resource or target, context)
        return Arrow(str(item), self._title(target), call.caller, permission, self._policies.get(target))

    def _assumption(self, item: DeployedResource, service: str, role: str, source_arn: str = "") -> Arrow:
        found = self._find(role)
        return self._arrow(item, found.arn, self._service(item, service, source_arn), "sts:AssumeRole")

    def _service(self, item: DeployedResource, principal: str, source_arn: str = "") -> Call:
        return Call(Caller(principal), source_arn or item.arn)

    def _role(self, name: str) -> Call:
        role = self._find(name)
        return Call(Caller(role.arn, tuple(self._statements.get(role.physical_id, ()))), "")

    def _find(self, name: str) -> DeployedResource:
        """Return a resource by its ARN or physical id. Raise ValueError if no stack has it."""
        if name not in self._by_name:
            raise ValueError(f"no stack has {name}, which a deployed resource calls")
        return self._by_name[name]

    def _arn(self, name: str) -> str:
        return self._by_name[name].arn if name in self._by_name else name

    def _title(self, name: str) -> str:
        return str(self._by_name[name]) if name in self._by_name else name


@dataclass(frozen=True)
class Call:
    """A caller, and the ARN that it sends as the source."""

    caller: Caller
    source_arn: str

    def context(self, action: str) -> dict[str, tuple[str, ...]]:
        """Return the condition keys that the service sends with an action. A role sends none."""
        values = {"aws:SourceAccount": ACCOUNT}
        return {key: (values.get(key, self.source_arn),) for key in sent_keys(self.caller.principal, action)}


def _invocation(given: Mapping[str, Any], function: str) -> Statement:
    """Return the statement of a function's policy that a Lambda permission adds."""
    conditions = {"ArnLike": {"aws:SourceArn": given.get("SourceArn")}}
    conditions["StringEquals"] = {"aws:SourceAccount": given.get("SourceAccount")}
    principal = given["Principal"]
    return {
        "Effect": "Allow",
        "Principal": {"Service" if principal.endswith(".com") else "AWS": principal},
        "Action": given["Action"],
        "Resource": function,
        "Condition": {test: keys for test, keys in conditions.items() if all(keys.values())},
    }


ARROWS: Mapping[str, Callable[[Deployed, DeployedResource], Iterator[Arrow]]] = {
    "AWS::Budgets::Budget": Deployed.budget,
    "AWS::CloudWatch::Alarm": Deployed.alarm,
    "AWS::Events::Rule": Deployed.rule,
    "AWS::Lambda::Function": Deployed.function,
    "AWS::Logs::LogGroup": Deployed.log_group,
    "AWS::S3::Bucket": Deployed.bucket,
    "AWS::SNS::Subscription": Deployed.subscription,
    "AWS::Scheduler::Schedule": Deployed.schedule,
}
