"""Does each bot get each alert once, in order, from a queue of its own, and does nothing get lost on the way?"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from deployments import Deployment, changed

from config.environment import Environment
from config.environments import dev
from config.validation import ConfigError


def test_topic_and_queues_keep_order_drop_repeats_and_are_encrypted(dev_deployment: Deployment) -> None:
    topic = dev_deployment.only("Alerts", "AWS::SNS::Topic")
    assert topic["FifoTopic"] is True
    assert topic["KmsMasterKeyId"]
    for queue in dev_deployment.resources("Alerts", "AWS::SQS::Queue"):
        assert queue["FifoQueue"] is True
        assert queue["KmsMasterKeyId"]
        assert not queue.get("ContentBasedDeduplication"), "the alert's stable id is what repeats are known by"


def test_every_bot_has_a_queue_and_what_it_fails_at_is_kept(synthesize: Callable[[Environment], Deployment]) -> None:
    found = synthesize(changed(dev(), bots=("trend", "mean-reversion")))
    queues = found.resources("Alerts", "AWS::SQS::Queue")
    mains = [queue for queue in queues if "RedrivePolicy" in queue]
    assert len(mains) == 2
    assert len(queues) == 4
    assert all(queue["RedrivePolicy"]["maxReceiveCount"] == 5 for queue in mains)
    subscriptions = found.resources("Alerts", "AWS::SNS::Subscription")
    assert [item["Protocol"] for item in subscriptions] == ["sqs", "sqs"]
    assert all(item["RawMessageDelivery"] for item in subscriptions)
    failed = json.dumps([item["RedrivePolicy"]["deadLetterTargetArn"] for item in subscriptions])
    assert "TrendFailed" in failed
    assert "MeanReversionFailed" in failed


def test_only_the_topic_may_put_alerts_into_a_queue(dev_deployment: Deployment) -> None:
    policies = json.dumps(dev_deployment.resources("Alerts", "AWS::SQS::QueuePolicy"))
    assert "sns.amazonaws.com" in policies
    assert "aws:SourceArn" in policies
    assert "aws:SecureTransport" in policies


def test_a_bots_policy_is_for_its_own_queue_alone(synthesize: Callable[[Environment], Deployment]) -> None:
    found = synthesize(changed(dev(), bots=("trend", "mean-reversion")))
    policies = found.resources("Alerts", "AWS::IAM::ManagedPolicy")
    assert len(policies) == 2
    for policy, own in zip(policies, ("Trend", "MeanReversion"), strict=True):
        messages, key = policy["PolicyDocument"]["Statement"]
        assert {action.split(":")[0] for action in messages["Action"]} == {"sqs"}
        assert "sqs:SendMessage" not in messages["Action"]
        assert messages["Resource"]["Fn::GetAtt"][0].startswith(own)
        assert not messages["Resource"]["Fn::GetAtt"][0].startswith(f"{own}Failed")
        assert key["Action"] == "kms:Decrypt"
        assert "sqs." in json.dumps(key["Condition"])


def test_a_bot_without_a_proper_name_is_refused_by_it() -> None:
    with pytest.raises(ConfigError, match=r"bots is 'Big Bot'.*lower case"):
        changed(dev(), bots=("Big Bot",))
