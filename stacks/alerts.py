"""How do price alerts reach bots? A topic that takes each alert once, and a queue of its own for every bot.

Topic and queues are first in, first out by symbol, and drop by its stable id what comes twice in five minutes; a bot
drops the rest by the same id (examples/bot.py). What a bot fails at five times, and what the topic cannot put into its
queue, waits in its dead-letter queue.
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
from stacks.constructs.grants import allow
from stacks.platform import Platform

TRIES = 5
KEPT = cdk.Duration.days(14)
SEEN = cdk.Duration.seconds(60)  # how long a bot may take for one alert


class AlertsStack(BarflowStack):
    """``topic``, and by bot its ``queues``, ``failed`` ones and ``policies``. ``let_publish(role)`` lets it send."""

    def __init__(self, scope: Construct, platform: Platform) -> None:
        environment = platform.environment
        super().__init__(scope, environment, description="price alerts for bots")
        self._keys = keys = platform.keys
        self._prefix = f"barflow-{environment.name}-alerts"
        self.topic = sns.Topic(
            self, "Alerts", topic_name=f"{self._prefix}.fifo", fifo=True, master_key=keys.data, enforce_ssl=True
        )
        self.failed = {bot: self._failed(bot) for bot in environment.bots}
        self.queues = {bot: self._queue(bot, failed) for bot, failed in self.failed.items()}
        self.policies = {bot: self._policy(bot, queue) for bot, queue in self.queues.items()}
        self.output(outputs.ALERTS_TOPIC, self.topic.topic_arn)
        self.output(outputs.BOT_QUEUES, ",".join(queue.queue_url for queue in self.queues.values()) or "none")
        self.output(
            outputs.BOT_POLICIES, ",".join(policy.managed_policy_arn for policy in self.policies.values()) or "none"
        )

    def let_publish(self, role: iam.IRole) -> None:
        """Lets the role send alerts, and use the topic's key through SNS only."""
        allow(role, ["sns:Publish"], [self.topic.topic_arn])
        through = {"StringEquals": {"kms:ViaService": f"sns.{self.region}.{self.url_suffix}"}}
        allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [self._keys.data.key_arn], through)

    def _failed(self, bot: str) -> sqs.Queue:
        failed = self._fifo(f"{_id(bot)}Failed", f"{bot}-failed")
        acknowledge(failed, "it is where a bot's failures end; people read it", "AwsSolutions-SQS3")
        return failed

    def _queue(self, bot: str, failed: sqs.Queue) -> sqs.Queue:
        queue = self._fifo(
            _id(bot),
            bot,
            visibility_timeout=SEEN,
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=TRIES),
        )
        self.topic.add_subscription(
            subscriptions.SqsSubscription(queue, raw_message_delivery=True, dead_letter_queue=failed)
        )
        return queue

    def _policy(self, bot: str, queue: sqs.Queue) -> iam.ManagedPolicy:
        """What a bot's role takes, wherever the bot runs: its alerts and nothing else."""
        through = {"StringEquals": {"kms:ViaService": f"sqs.{self.region}.{self.url_suffix}"}}
        takes = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
        return iam.ManagedPolicy(
            self,
            f"{_id(bot)}Policy",
            description=f"Barflow {self.environment_config.name}: what the bot {bot} takes to read its price alerts",
            statements=[
                iam.PolicyStatement(actions=takes, resources=[queue.queue_arn]),
                iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self._keys.data.key_arn], conditions=through),
            ],
        )

    def _fifo(self, name: str, bot: str, **more: Any) -> sqs.Queue:
        """Named, because a first in, first out queue is known by the end of its name."""
        return sqs.Queue(
            self,
            name,
            queue_name=f"{self._prefix}-{bot}.fifo",
            fifo=True,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self._keys.data,
            enforce_ssl=True,
            retention_period=KEPT,
            **more,
        )


def _id(bot: str) -> str:
    return bot.title().replace("-", "")
