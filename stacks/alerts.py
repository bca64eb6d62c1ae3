"""Price alerts for bots: one topic, and a queue for each bot.

The topic and the queues are FIFO per symbol. They drop an alert whose id repeats within five minutes; a bot drops later
repeats by the same id (examples/paper_bot.py). An alert goes to the bot's dead-letter queue when the bot failed to
handle it five times, or when the topic could not deliver it to the queue.
"""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.grants import allow, allow_key, through_service
from stacks.platform import Platform

MAX_RECEIVES = 5
RETENTION = cdk.Duration.days(14)
VISIBILITY_TIMEOUT = cdk.Duration.seconds(60)  # the time that a bot has for one alert


class AlertsStack(BarflowStack):
    """The ``topic``, and by bot the ``queues``, the ``failed_names`` of dead-letter queues and the ``policies``.

    Names are not references to the queues: an export could not be removed with its bot.
    """

    def __init__(self, scope: Construct, platform: Platform) -> None:
        """Create the topic, and the queues and policy of each bot."""
        environment = platform.environment
        super().__init__(scope, environment, description="price alerts for bots")
        self._keys = keys = platform.keys
        self._prefix = f"barflow-{environment.name}-alerts"
        self.topic = sns.Topic(
            self, "Alerts", topic_name=f"{self._prefix}.fifo", fifo=True, master_key=keys.data, enforce_ssl=True
        )
        self.queues = {bot: self._queue(bot, self._failed(bot)) for bot in environment.bots}
        self.failed_names = {bot: self._name(f"{bot}-failed") for bot in environment.bots}
        self.policies = {bot: self._policy(bot, queue) for bot, queue in self.queues.items()}
        self.output(outputs.ALERTS_TOPIC, self.topic.topic_arn)
        self.output(outputs.BOT_QUEUES, ",".join(queue.queue_url for queue in self.queues.values()) or "none")
        self.output(
            outputs.BOT_POLICIES, ",".join(policy.managed_policy_arn for policy in self.policies.values()) or "none"
        )

    def allow_publish(self, role: iam.IRole) -> None:
        """Allow the role to publish alerts, and to use the topic's key through SNS only."""
        allow(role, ["sns:Publish"], [self.topic.topic_arn])
        allow_key(role, self._keys.data, ["kms:Decrypt", "kms:GenerateDataKey"], service="sns")

    def _name(self, bot: str) -> str:
        return f"{self._prefix}-{bot}.fifo"

    def _failed(self, bot: str) -> sqs.Queue:
        failed = self._fifo(f"{_id(bot)}Failed", f"{bot}-failed")
        acknowledge(failed, "it is a dead-letter queue itself; people read it", "AwsSolutions-SQS3")
        return failed

    def _queue(self, bot: str, failed: sqs.Queue) -> sqs.Queue:
        queue = self._fifo(
            _id(bot),
            bot,
            visibility_timeout=VISIBILITY_TIMEOUT,
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=MAX_RECEIVES),
        )
        self.topic.add_subscription(
            subscriptions.SqsSubscription(queue, raw_message_delivery=True, dead_letter_queue=failed)
        )
        return queue

    def _policy(self, bot: str, queue: sqs.Queue) -> iam.ManagedPolicy:
        """Return the policy for a bot's role: it can read its own queue and nothing else."""
        receive = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
        return iam.ManagedPolicy(
            self,
            f"{_id(bot)}Policy",
            # CloudFormation replaces a managed policy whose description changes; bots' roles have it attached.
            description=f"Barflow {self.environment_config.name}: what the bot {bot} takes to read its price alerts",
            statements=[
                iam.PolicyStatement(actions=receive, resources=[queue.queue_arn]),
                iam.PolicyStatement(
                    actions=["kms:Decrypt"],
                    resources=[self._keys.data.key_arn],
                    conditions=through_service(self, "sqs"),
                ),
            ],
        )

    def _fifo(self, name: str, bot: str, **more: Any) -> sqs.Queue:
        """Return a queue with a name of its own: SQS requires the suffix .fifo."""
        return sqs.Queue(
            self,
            name,
            queue_name=self._name(bot),
            fifo=True,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self._keys.data,
            enforce_ssl=True,
            retention_period=RETENTION,
            **more,
        )


def _id(bot: str) -> str:
    return bot.title().replace("-", "")
