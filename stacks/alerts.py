"""How do price alerts reach bots? A topic that takes each alert once, and a queue of its own for every bot.

Topic and queues are first in, first out by symbol, and drop by its stable id what comes twice in five minutes; a bot
drops the rest by the same id (examples/bot.py). What a bot fails at five times waits in its dead-letter queue.
"""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from config.environment import Environment
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.grants import allow
from stacks.secrets import Keys

TRIES = 5
KEPT = cdk.Duration.days(14)
SEEN = cdk.Duration.seconds(60)  # how long a bot may take for one alert


class AlertsStack(BarflowStack):
    """``topic``, and by bot its ``queues``. ``let_publish(role)`` gives the right to send."""

    def __init__(self, scope: Construct, environment: Environment, *, keys: Keys) -> None:
        super().__init__(scope, environment, description="price alerts for bots")
        self._keys = keys
        self.topic = sns.Topic(self, "Alerts", fifo=True, master_key=keys.data, enforce_ssl=True)
        self.queues = {bot: self._queue(bot) for bot in environment.bots}
        self.output(outputs.ALERTS_TOPIC, self.topic.topic_arn)
        self.output(outputs.BOT_QUEUES, ",".join(queue.queue_url for queue in self.queues.values()) or "none")

    def let_publish(self, role: iam.IRole) -> None:
        """Lets the role send alerts, and use the topic's key through SNS only."""
        allow(role, ["sns:Publish"], [self.topic.topic_arn])
        through = {"StringEquals": {"kms:ViaService": f"sns.{self.region}.{self.url_suffix}"}}
        allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [self._keys.data.key_arn], through)

    def _queue(self, bot: str) -> sqs.Queue:
        name = bot.title().replace("-", "")
        failed = self._fifo(f"{name}Failed")
        queue = self._fifo(
            name,
            visibility_timeout=SEEN,
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=TRIES),
        )
        self.topic.add_subscription(subscriptions.SqsSubscription(queue, raw_message_delivery=True))
        acknowledge(failed, "it is where a bot's failures end; people read it", "AwsSolutions-SQS3")
        return queue

    def _fifo(self, name: str, **more: Any) -> sqs.Queue:
        return sqs.Queue(
            self,
            name,
            fifo=True,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self._keys.data,
            enforce_ssl=True,
            retention_period=KEPT,
            **more,
        )
