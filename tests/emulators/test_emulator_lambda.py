"""The Lambda emulator: functions run with their deployed code and variables, and a failed trigger fails its stack."""

from __future__ import annotations

import json
from typing import Any

from aws_parts import CODE, Aws, zipped

HANDLER = """
import json, os
import barflow, orjson
def handler(event, context):
    print("running")
    return {"event": event, "library": barflow.WHERE, "given": os.environ["GIVEN"], "setting": os.environ["SETTING"],
            "of_tests": os.environ.get("PYTEST_CURRENT_TEST"), "packages": orjson.loads("[1]")}
"""
BUNDLE = {
    "handler.py": HANDLER,
    "barflow/__init__.py": "WHERE = 'deployed'",
    "orjson/__init__.py": "raise ImportError('built for another processor')",
}


def deploy(aws: Aws, name: str, files: dict[str, str], **more: Any) -> str:
    """Deploy a function and return its ARN."""
    created = aws.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role="arn:aws:iam::123456789012:role/r",
        Handler="handler.handler",
        Code={"ZipFile": zipped(files)},
        Environment={"Variables": {"GIVEN": "here"}},
        **more,
    )
    return str(created["FunctionArn"])


def invoke(aws: Aws, name: str, event: Any) -> tuple[dict[str, Any], str | None]:
    """Return the answer, and the kind of error if it is one."""
    done = aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return json.loads(done["Payload"].read()), done.get("FunctionError")


def test_a_function_runs_its_bundle_with_its_variables_and_the_installed_packages(aws: Aws) -> None:
    deploy(aws, "prints", BUNDLE, Timeout=60)
    answer, error = invoke(aws, "prints", {"force": True})
    assert error is None, answer
    assert answer == {
        **{"event": {"force": True}, "library": "deployed", "given": "here", "setting": "here"},
        **{"of_tests": None, "packages": [1]},
    }
    logs = aws.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName="/aws/lambda/prints")["logStreams"]
    events = logs.get_log_events(logGroupName="/aws/lambda/prints", logStreamName=stream["logStreamName"])["events"]
    assert [event["message"] for event in events] == ["running"]


def test_an_exception_of_a_function_is_answered_with_its_message(aws: Aws) -> None:
    raises = {"handler.py": "def handler(event, context):\n    raise ValueError('no key')\n"}
    deploy(aws, "raises", raises, Timeout=60)
    answer, error = invoke(aws, "raises", {})
    assert error
    assert answer == {"errorMessage": "no key", "errorType": "ValueError"}


def test_a_function_that_exceeds_its_timeout_is_ended(aws: Aws) -> None:
    slow = {"handler.py": "import time\ndef handler(event, context):\n    time.sleep(600)\n"}
    deploy(aws, "slow", slow, Timeout=1)
    answer, error = invoke(aws, "slow", {})
    assert error
    assert "timed out after 1.00 seconds" in answer["errorMessage"]


def template(code: str) -> str:
    """Return a template with a function and its trigger."""
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


MARKING_HANDLER = """
import boto3, os
def handler(event, context):
    boto3.client("s3").put_object(Bucket="code", Key="ran/" + os.environ["GIVEN"], Body=b"")
"""


def test_a_trigger_runs_its_function_while_the_stack_is_created(aws: Aws) -> None:
    aws.put("marks.zip", zipped({"handler.py": MARKING_HANDLER}))
    aws.client("cloudformation").create_stack(StackName="triggers", TemplateBody=template("marks.zip"))
    assert aws.client("s3").head_object(Bucket=CODE, Key="ran/marks.zip")


def test_a_failed_trigger_fails_its_stack_with_the_functions_error(aws: Aws) -> None:
    aws.put("wrong.zip", zipped({"handler.py": "def handler(event, context):\n    raise OSError('no database')\n"}))
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="fails", TemplateBody=template("wrong.zip"))
    assert stacks.describe_stacks(StackName="fails")["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE"
    reasons = [
        item.get("ResourceStatusReason") for item in stacks.describe_stack_events(StackName="fails")["StackEvents"]
    ]
    assert "Trigger handler failed: no database" in reasons
