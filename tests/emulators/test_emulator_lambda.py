"""Do functions run with their deployed code and variables, and does a trigger that fails fail its deployment?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_parts import CODE, Aws, zipped
from botocore.exceptions import ClientError

HANDLER = """
import json, os
import barflow, orjson
def handler(event, context):
    print("at work")
    return {"event": event, "library": barflow.WHERE, "given": os.environ["GIVEN"], "setting": os.environ["SETTING"],
            "of_tests": os.environ.get("PYTEST_CURRENT_TEST"), "packages": orjson.loads("[1]")}
"""
BUNDLE = {
    "handler.py": HANDLER,
    "barflow/__init__.py": "WHERE = 'deployed'",
    "orjson/__init__.py": "raise ImportError('built for another processor')",
}


def function(aws: Aws, name: str, files: dict[str, str], **more: Any) -> str:
    """Deploys a function of that name."""
    made = aws.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role="arn:aws:iam::123456789012:role/r",
        Handler="handler.handler",
        Code={"ZipFile": zipped(files)},
        Environment={"Variables": {"GIVEN": "here"}},
        **more,
    )
    return str(made["FunctionArn"])


def invoke(aws: Aws, name: str, event: Any) -> tuple[dict[str, Any], str | None]:
    """The answer, and its kind of error."""
    done = aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return json.loads(done["Payload"].read()), done.get("FunctionError")


def test_a_function_runs_its_bundle_with_its_variables_and_this_environments_packages(aws: Aws) -> None:
    function(aws, "says", BUNDLE, Timeout=60)
    answer, error = invoke(aws, "says", {"force": True})
    assert error is None, answer
    assert answer == {
        **{"event": {"force": True}, "library": "deployed", "given": "here", "setting": "here"},
        **{"of_tests": None, "packages": [1]},
    }
    logs = aws.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName="/aws/lambda/says")["logStreams"]
    events = logs.get_log_events(logGroupName="/aws/lambda/says", logStreamName=stream["logStreamName"])["events"]
    assert [event["message"] for event in events] == ["at work"]


def test_a_function_that_raises_is_an_error_with_its_words(aws: Aws) -> None:
    raises = {"handler.py": "def handler(event, context):\n    raise ValueError('no key')\n"}
    function(aws, "raises", raises, Timeout=60)
    answer, error = invoke(aws, "raises", {})
    assert error
    assert answer == {"errorMessage": "no key", "errorType": "ValueError"}


def test_a_function_that_takes_too_long_is_ended(aws: Aws) -> None:
    slow = {"handler.py": "import time\ndef handler(event, context):\n    time.sleep(600)\n"}
    function(aws, "slow", slow, Timeout=1)
    answer, error = invoke(aws, "slow", {})
    assert error
    assert "timed out after 1.00 seconds" in answer["errorMessage"]


def stack_of(code: str) -> str:
    """A template with a function and its trigger."""
    properties = {
        "Code": {"S3Bucket": CODE, "S3Key": code},
        **{"Handler": "handler.handler", "Runtime": "python3.13", "Role": "arn:aws:iam::123456789012:role/r"},
        "Environment": {"Variables": {"GIVEN": code}},
        "Timeout": 60,
    }
    return json.dumps(
        {
            "Resources": {
                "Function": {"Type": "AWS::Lambda::Function", "Properties": properties},
                "Version": {
                    "Type": "AWS::Lambda::Version",
                    "Properties": {"FunctionName": {"Ref": "Function"}},
                },
                "Run": {"Type": "Custom::Trigger", "Properties": {"HandlerArn": {"Ref": "Version"}}},
            }
        }
    )


MARKS = """
import boto3, os
def handler(event, context):
    boto3.client("s3").put_object(Bucket="code", Key="ran/" + os.environ["GIVEN"], Body=b"")
"""


def test_a_trigger_runs_its_function_while_the_stack_is_made(aws: Aws) -> None:
    aws.put("marks.zip", zipped({"handler.py": MARKS}))
    aws.client("cloudformation").create_stack(StackName="triggers", TemplateBody=stack_of("marks.zip"))
    assert aws.client("s3").head_object(Bucket=CODE, Key="ran/marks.zip")


def test_a_trigger_whose_function_fails_fails_the_deployment_with_its_words(aws: Aws) -> None:
    aws.put("wrong.zip", zipped({"handler.py": "def handler(event, context):\n    raise OSError('no database')\n"}))
    with pytest.raises(ClientError, match="Trigger handler failed: no database"):
        aws.client("cloudformation").create_stack(StackName="fails", TemplateBody=stack_of("wrong.zip"))
