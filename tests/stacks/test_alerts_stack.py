"""Each bot gets every alert in order from its own queue, and an alert that fails is kept."""

from __future__ import annotations

import json

import pytest
from deployments import Deployment, changed

from config.environments import dev
from config.validation import ConfigError


def test_topic_and_queues_are_fifo_deduplicate_by_the_alerts_id_and_are_encrypted(dev_deployment: Deployment) -> None:
    topic = dev_deployment.only("Alerts", "AWS::SNS::Topic")
    assert topic["FifoTopic"] is True
    assert topic["KmsMasterKeyId"]
    for queue in dev_deployment.resources("Alerts", "AWS::SQS::Queue"):
        assert queue["FifoQueue"] is True
        assert queue["KmsMasterKeyId"]
        assert not queue.get("ContentBasedDeduplication"), "the publisher gives the alert's id for deduplication"


def test_every_bot_has_a_queue_and_a_dead_letter_queue(two_bots: Deployment) -> None:
    queues = two_bots.resources("Alerts", "AWS::SQS::Queue")
    mains = [queue for queue in queues if "RedrivePolicy" in queue]
    assert len(mains) == 2
    assert len(queues) == 4
    assert all(queue["RedrivePolicy"]["maxReceiveCount"] == 5 for queue in mains)
    subscriptions = two_bots.resources("Alerts", "AWS::SNS::Subscription")
    assert [item["Protocol"] for item in subscriptions] == ["sqs", "sqs"]
    assert all(item["RawMessageDelivery"] for item in subscriptions)
    failed = json.dumps([item["RedrivePolicy"]["deadLetterTargetArn"] for item in subscriptions])
    assert "TrendFailed" in failed
    assert "MeanReversionFailed" in failed


def test_only_the_topic_sends_to_a_queue_and_only_over_tls(dev_deployment: Deployment) -> None:
    policies = json.dumps(dev_deployment.resources("Alerts", "AWS::SQS::QueuePolicy"))
    assert "sns.amazonaws.com" in policies
    assert "aws:SourceArn" in policies
    assert "aws:SecureTransport" in policies


def test_a_bots_policy_allows_only_its_own_queue(two_bots: Deployment) -> None:
    policies = two_bots.resources("Alerts", "AWS::IAM::ManagedPolicy")
    assert len(policies) == 2
    for policy, own in zip(policies, ("Trend", "MeanReversion"), strict=True):
        messages, key = policy["PolicyDocument"]["Statement"]
        assert {action.split(":")[0] for action in messages["Action"]} == {"sqs"}
        assert "sqs:SendMessage" not in messages["Action"]
        assert messages["Resource"]["Fn::GetAtt"][0].startswith(own)
        assert not messages["Resource"]["Fn::GetAtt"][0].startswith(f"{own}Failed")
        assert key["Action"] == "kms:Decrypt"
        assert "sqs." in json.dumps(key["Condition"])


def test_a_bot_with_an_invalid_name_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"bots is 'Big Bot'.*lower case"):
        changed(dev(), bots=("Big Bot",))
