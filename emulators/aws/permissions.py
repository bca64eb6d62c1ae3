"""The permissions that each API call of a deployed program needs, by AWS's Service Authorization Reference.

A call needs its action on its resource. It may also need to pass a role, or to use the KMS key of its resource.
Condition keys of the request are part of a permission. A call that is not listed in ``PERMISSIONS`` is denied, so that
none is overlooked. To support a new call, add a line there.

https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moto.athena.models import athena_backends
from moto.cloudformation.models import cloudformation_backends
from moto.ec2.models import ec2_backends
from moto.emr.models import emr_backends
from moto.glue.models import glue_backends
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.dqdl import EVALUATED
from emulators.aws.iam_policies import Permission

Parameters = Mapping[str, Any]
Permissions = Callable[[Parameters], Iterator[Permission]]
READ_KEY, WRITE_KEY = ("kms:Decrypt",), ("kms:Decrypt", "kms:GenerateDataKey")
# The KMS actions that an action on the objects of an encrypted bucket needs.
OBJECT_KEY_ACTIONS = {"s3:GetObject": READ_KEY, "s3:PutObject": WRITE_KEY}
PARTITION_ACTIONS = ("glue:GetTable", "glue:BatchCreatePartition", "glue:BatchGetPartition")
NEW_TABLE_ACTIONS = ("glue:CreateTable", "glue:UpdateTable")
JOB_ACTIONS = ("glue:CreateJob", "glue:GetJob", "glue:StartJobRun", "glue:GetJobRun", "glue:DeleteJob")
EVALUATION_ACTIONS = (
    "glue:GetDataQualityRuleset", "glue:GetDataQualityRulesetEvaluationRun", "glue:GetDataQualityResult",
    "glue:PublishDataQuality",
)  # fmt: skip


def required_permissions(service: str, operation: str, parameters: Parameters) -> list[Permission]:
    """Return what a call needs; ``service`` is the name that the request is signed for.

    Raise ValueError for a call that is not listed here.
    """
    if (name := f"{service}:{operation}") not in PERMISSIONS:
        raise ValueError(f"emulators/aws/permissions.py does not list the permissions of {name}: add them")
    return list(PERMISSIONS[name](parameters))


def on_object(action: str, bucket: str, key: str | None = None) -> Iterator[Permission]:
    """Yield an S3 action on a bucket, or on an object and on the key that the bucket encrypts it with."""
    yield Permission(action, f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}")
    for key_action in OBJECT_KEY_ACTIONS.get(action, ()):
        yield from on_key(key_action, _bucket_key(bucket), "s3")


def on_uri(action: str, uri: str) -> Iterator[Permission]:
    """Yield an S3 action on the object of an s3:// URI, and on its key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    yield from on_object(action, bucket, key)


def on_key(action: str, key: str | None, service: str) -> Iterator[Permission]:
    """Yield an action on a customer-managed key, through the service that uses it; yield nothing without a key."""
    if key is not None:
        resource = key if key.startswith("arn:") else _arn("kms", f"key/{key}")
        through = {"kms:ViaService": (f"{service}.{REGION}.amazonaws.com",)}
        yield Permission(action, resource, {**through, **stack_tags(resource.rsplit("/", 1)[-1])})


def stack_tags(physical_id: str) -> dict[str, tuple[str, ...]]:
    """Return the condition keys of a resource's tags: CloudFormation gives a resource the tags of its stack."""
    for stack in cloudformation_backends[ACCOUNT][REGION].stacks.values():
        if any(getattr(item, "physical_resource_id", None) == physical_id for item in stack.stack_resources):
            return {f"aws:ResourceTag/{name}": (value,) for name, value in stack.tags.items()}
    return {}


def of_crawl(crawler: Any) -> Iterator[Permission]:
    """Yield what a crawler needs as its role: to read its targets, and to write the catalog."""
    for target in crawler.targets.get("CatalogTargets", ()):
        for name in target["Tables"]:
            storage = crawler.backend.get_table(target["DatabaseName"], name).as_dict()["StorageDescriptor"]
            yield from _on_table(PARTITION_ACTIONS, {"DatabaseName": target["DatabaseName"], "Name": name})
            yield from _on_prefix(storage["Location"])
    for target in crawler.targets.get("JdbcTargets", ()):
        yield Permission("glue:GetConnection", _arn("glue", f"connection/{target['ConnectionName']}"))
        found = crawler.backend.get_connection(ACCOUNT, target["ConnectionName"], "").connection_properties
        yield from _get_secret({"SecretId": found["SECRET_ID"]})
        if driver := found.get("JDBC_DRIVER_JAR_URI"):
            yield from _own_driver(crawler.role, driver)
        new_table = {"DatabaseName": crawler.database_name, "Name": f"{crawler.table_prefix}any"}
        yield from _on_table(NEW_TABLE_ACTIONS, new_table)


def _own_driver(role: str, driver: str) -> Iterator[Permission]:
    """Yield what a crawler needs to run a job with its own driver. The job's files are in two folders beside it.

    https://docs.aws.amazon.com/glue/latest/dg/console-connections-jdbc-drivers.html
    """
    for action in JOB_ACTIONS:
        yield Permission(action, _arn("glue", "job/any"))
    yield _pass_role(role, "glue")
    yield from on_uri("s3:GetObject", driver)
    bucket, _, key = driver.removeprefix("s3://").partition("/")
    yield Permission("s3:ListBucket", f"arn:aws:s3:::{bucket}")
    for folder in ("_crawler", "_glue_job_crawler"):
        for action in ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
            yield from on_object(action, bucket, f"{key.rsplit('/', 1)[0]}/{folder}/any")


def of_evaluation(given: Parameters) -> Iterator[Permission]:
    """Yield what an evaluation of data quality rules needs as its role: programs, rules, table and objects, result.

    https://docs.aws.amazon.com/glue/latest/dg/data-quality-authorization.html
    """
    yield Permission("s3:GetObject", f"arn:aws:s3:::aws-glue-ml-data-quality-assets-{REGION}/jars/any.jar")
    for name in given["RulesetNames"]:
        for action in EVALUATION_ACTIONS:
            yield Permission(action, _arn("glue", f"dataQualityRuleset/{name}"))
    source = given["DataSource"]["GlueTable"]
    yield from _on_table(("glue:GetTable", "glue:GetPartitions"), source)
    table = glue_backends[ACCOUNT][REGION].get_table(source["DatabaseName"], source["TableName"])
    yield from _on_prefix(table.as_dict()["StorageDescriptor"]["Location"])


def role_of_instances(profile: str) -> str:
    """Return the name of the role in an instance profile."""
    return str(iam_backends[ACCOUNT]["aws"].get_instance_profile(profile.rsplit("/", 1)[-1]).roles[0].name)


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def _bucket_key(bucket: str) -> str | None:
    rules = (s3_backends[ACCOUNT]["aws"].get_bucket(bucket).encryption or {}).get("Rule", [])
    rule = rules[0] if isinstance(rules, list) and rules else rules
    found = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") if rule else None
    return str(found) if found else None


def _on_prefix(uri: str) -> Iterator[Permission]:
    """Yield listing and reading of all objects below a URI."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    yield Permission("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": (prefix,)})
    yield from on_object("s3:GetObject", bucket, f"{prefix}any")


def _on_table(actions: tuple[str, ...], parameters: Parameters) -> Iterator[Permission]:
    """Yield Glue actions on a table; Glue needs the same on the table's database and on the catalog."""
    database, table = parameters["DatabaseName"], parameters.get("TableName") or parameters.get("Name")
    for action in actions:
        for name in ("catalog", f"database/{database}", f"table/{database}/{table}"):
            yield Permission(action, _arn("glue", name))


def _pass_role(role: str, service: str) -> Permission:
    """Return the permission to pass a role, by its name or ARN, to a service."""
    name = role.rsplit("/", 1)[-1]
    passed_to = {"iam:PassedToService": (f"{service}.amazonaws.com",)}
    return Permission("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{name}", passed_to)


def _describe_secret(parameters: Parameters) -> Iterator[Permission]:
    name = parameters["SecretId"]
    secret = secretsmanager_backends[ACCOUNT][REGION].secrets.get(name)
    yield Permission("secretsmanager:DescribeSecret", secret.arn if secret else _arn("secretsmanager", name))


def _get_secret(parameters: Parameters) -> Iterator[Permission]:
    name = parameters["SecretId"]
    secret = secretsmanager_backends[ACCOUNT][REGION].secrets.get(name)
    yield Permission("secretsmanager:GetSecretValue", secret.arn if secret else _arn("secretsmanager", name))
    yield from on_key("kms:Decrypt", secret and secret.kms_key_id, "secretsmanager")


def _publish(parameters: Parameters) -> Iterator[Permission]:
    yield Permission("sns:Publish", parameters["TopicArn"])
    topic = sns_backends[ACCOUNT][REGION].topics.get(parameters["TopicArn"])
    for action in WRITE_KEY:
        yield from on_key(action, topic and (topic.kms_master_key_id or None), "sns")


def _on_queue(action: str) -> Permissions:
    """Return the permissions of an action on a queue; to receive needs the key of the messages."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        name = str(parameters["QueueUrl"]).rsplit("/", 1)[-1]
        yield Permission(f"sqs:{action}", _arn("sqs", name))
        queue = sqs_backends[ACCOUNT][REGION].queues.get(name)
        if action == "ReceiveMessage":
            yield from on_key("kms:Decrypt", queue and queue.kms_master_key_id, "sqs")

    return permissions


def _run_job_flow(parameters: Parameters) -> Iterator[Permission]:
    tags = {f"elasticmapreduce:RequestTag/{tag['Key']}": (tag["Value"],) for tag in parameters.get("Tags", ())}
    yield Permission("elasticmapreduce:RunJobFlow", context=tags)
    if tags:
        yield Permission("elasticmapreduce:AddTags", _arn("elasticmapreduce", "cluster/*"), tags)
    if "AutoTerminationPolicy" in parameters:  # of a cluster that has no tag yet
        yield Permission("elasticmapreduce:PutAutoTerminationPolicy", _arn("elasticmapreduce", "cluster/*"))
    yield _pass_role(parameters["ServiceRole"], "elasticmapreduce")
    yield _pass_role(role_of_instances(parameters["JobFlowRole"]), "ec2")


def _on_cluster(action: str) -> Permissions:
    """Return the permissions of an action on clusters, with the tags of each as condition keys."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        ids = parameters.get("JobFlowIds") or [parameters.get("ClusterId") or parameters["JobFlowId"]]
        for cluster in ids:
            found = emr_backends[ACCOUNT][REGION].clusters.get(cluster)
            tags = found.tags if found else ()
            keys = {f"elasticmapreduce:ResourceTag/{tag['Key']}": (tag["Value"],) for tag in tags}
            yield Permission(f"elasticmapreduce:{action}", _arn("elasticmapreduce", f"cluster/{cluster}"), keys)

    return permissions


def _update_job(parameters: Parameters) -> Iterator[Permission]:
    yield Permission("glue:UpdateJob", _arn("glue", f"job/{parameters['JobName']}"))
    yield _pass_role(parameters["JobUpdate"]["Role"], "glue")


def _start_evaluation(parameters: Parameters) -> Iterator[Permission]:
    for name in parameters["RulesetNames"]:
        yield Permission("glue:StartDataQualityRulesetEvaluationRun", _arn("glue", f"dataQualityRuleset/{name}"))
    yield _pass_role(parameters["Role"], "glue")


def _on_evaluation(action: str, parameter: str) -> Permissions:
    """Return the permission of an action on the rulesets of an evaluation."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        for name in EVALUATED.get(parameters[parameter], ["*"]):
            yield Permission(action, _arn("glue", f"dataQualityRuleset/{name}"))

    return permissions


def _get_parameter(parameters: Parameters) -> Iterator[Permission]:
    yield Permission("ssm:GetParameter", _arn("ssm", f"parameter/{parameters['Name'].removeprefix('/')}"))


def _put_metric_data(parameters: Parameters) -> Iterator[Permission]:
    yield Permission("cloudwatch:PutMetricData", context={"cloudwatch:namespace": (parameters["Namespace"],)})


def _start_query(parameters: Parameters) -> Iterator[Permission]:
    """Yield what a query needs: its workgroup, the tables that it names with their objects, and its result."""
    group = parameters.get("WorkGroup", "primary")
    yield Permission("athena:StartQueryExecution", _arn("athena", f"workgroup/{group}"))
    database = parameters["QueryExecutionContext"]["Database"]
    for name, table in glue_backends[ACCOUNT][REGION].get_database(database).tables.items():
        if name in parameters["QueryString"]:
            yield from _on_table(("glue:GetTable", "glue:GetPartitions"), {"DatabaseName": database, "Name": name})
            yield from _on_prefix(table.as_dict()["StorageDescriptor"]["Location"])
    settings = athena_backends[ACCOUNT][REGION].work_groups[group].configuration["ResultConfiguration"]
    result = f"{settings['OutputLocation']}any"
    yield Permission("s3:GetBucketLocation", f"arn:aws:s3:::{result.removeprefix('s3://').split('/')[0]}")
    yield from on_uri("s3:PutObject", result)
    yield from on_uri("s3:GetObject", result)


def _on_query(action: str) -> Permissions:
    """Return the permissions of an action on a query, which belongs to its workgroup."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        execution = athena_backends[ACCOUNT][REGION].executions[parameters["QueryExecutionId"]]
        yield Permission(f"athena:{action}", _arn("athena", f"workgroup/{execution.workgroup.name}"))

    return permissions


def _send_command(parameters: Parameters) -> Iterator[Permission]:
    """Yield what a command needs: its document, which is AWS's own, and each instance with its tags."""
    yield Permission("ssm:SendCommand", f"arn:aws:ssm:{REGION}::document/{parameters['DocumentName']}")
    for instance in parameters["InstanceIds"]:
        tags = ec2_backends[ACCOUNT][REGION].get_instance(instance).get_tags()
        keys = {f"aws:ResourceTag/{tag['key']}": (tag["value"],) for tag in tags}
        yield Permission("ssm:SendCommand", _arn("ec2", f"instance/{instance}"), keys)


def _global(action: str, kind: str, parameter: str) -> Permissions:
    """Return the permission of an action on a resource that belongs to no region."""
    service = action.split(":")[0]
    return lambda parameters: iter([Permission(action, f"arn:aws:{service}::{ACCOUNT}:{kind}/{parameters[parameter]}")])


def _on(action: str, kind: str, parameter: str, separator: str = "/") -> Permissions:
    """Return the permission of an action on the resource that a parameter names, or on all of its kind without one."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        name = str(parameters.get(parameter) or "*")
        arn = name if name.startswith("arn:") else _arn(action.split(":")[0], f"{kind}{separator}{name}")
        yield Permission(action, arn)

    return permissions


def _on_tagged(action: str, kind: str, parameter: str) -> Permissions:
    """Return the permission of an action on the resource of a stack, with its tags as condition keys."""

    def permissions(parameters: Parameters) -> Iterator[Permission]:
        name = str(parameters[parameter])
        yield Permission(action, _arn(action.split(":")[0], f"{kind}/{name}"), stack_tags(name))

    return permissions


def _on_anything(action: str) -> Permissions:
    return lambda parameters: iter([Permission(action)])


# The calls that only `barflow preflight` makes; its policy allows them on every resource.
ACCOUNT_READS = (
    "access-analyzer:ValidatePolicy",
    "ce:ListCostAllocationTags",
    "cloudformation:ListStackResources",
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeVpcs",
    "elasticmapreduce:DescribeSecurityConfiguration",
    "elasticmapreduce:ListSupportedInstanceTypes",
    "glue:GetDataQualityRuleset",
    "glue:GetDatabase",
    "glue:GetSecurityConfiguration",
    "iam:GetRole",
    "lambda:GetAccountSettings",
    "logs:DescribeLogGroups",
    "rds:DescribeOrderableDBInstanceOptions",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
    "sns:GetTopicAttributes",
    "sqs:GetQueueUrl",
    "ssm:DescribeParameters",
)
PERMISSIONS: Mapping[str, Permissions] = {
    **{call: _on_anything(call) for call in ACCOUNT_READS},
    "monitoring:ListDashboards": _on_anything("cloudwatch:ListDashboards"),
    "athena:GetQueryExecution": _on_query("GetQueryExecution"),
    "athena:GetQueryResults": _on_query("GetQueryResults"),
    "athena:GetWorkGroup": _on("athena:GetWorkGroup", "workgroup", "WorkGroup"),
    "athena:StartQueryExecution": _start_query,
    "athena:StopQueryExecution": _on_query("StopQueryExecution"),
    "budgets:DescribeBudget": _global("budgets:ViewBudget", "budget", "BudgetName"),
    "cloudformation:DescribeStacks": _on("cloudformation:DescribeStacks", "stack", "StackName"),
    "elasticmapreduce:AddJobFlowSteps": _on_cluster("AddJobFlowSteps"),
    "elasticmapreduce:CancelSteps": _on_cluster("CancelSteps"),
    "elasticmapreduce:DescribeCluster": _on_cluster("DescribeCluster"),
    "elasticmapreduce:DescribeStep": _on_cluster("DescribeStep"),
    "elasticmapreduce:ListClusters": _on_anything("elasticmapreduce:ListClusters"),
    "elasticmapreduce:ListSteps": _on_cluster("ListSteps"),
    "elasticmapreduce:RunJobFlow": _run_job_flow,
    "elasticmapreduce:TerminateJobFlows": _on_cluster("TerminateJobFlows"),
    "glue:BatchStopJobRun": _on("glue:BatchStopJobRun", "job", "JobName"),
    "glue:GetCrawler": _on("glue:GetCrawler", "crawler", "Name"),
    "glue:GetCrawlerMetrics": _on_anything("glue:GetCrawlerMetrics"),
    "glue:GetDataQualityResult": _on_evaluation("glue:GetDataQualityResult", "ResultId"),
    "glue:GetDataQualityRulesetEvaluationRun": _on_evaluation("glue:GetDataQualityRulesetEvaluationRun", "RunId"),
    "glue:GetJob": _on("glue:GetJob", "job", "JobName"),
    "glue:GetJobRun": _on_tagged("glue:GetJobRun", "job", "JobName"),
    "glue:GetJobRuns": _on("glue:GetJobRuns", "job", "JobName"),
    "glue:GetWorkflowRun": _on_tagged("glue:GetWorkflowRun", "workflow", "Name"),
    "glue:GetWorkflowRunProperties": _on_tagged("glue:GetWorkflowRunProperties", "workflow", "Name"),
    "glue:StartCrawler": _on_tagged("glue:StartCrawler", "crawler", "Name"),
    "glue:StartDataQualityRulesetEvaluationRun": _start_evaluation,
    "glue:StartJobRun": _on_tagged("glue:StartJobRun", "job", "JobName"),
    "glue:StartWorkflowRun": _on_tagged("glue:StartWorkflowRun", "workflow", "Name"),
    "glue:UpdateJob": _update_job,
    "lambda:Invoke": _on("lambda:InvokeFunction", "function", "FunctionName", ":"),
    "lambda:GetFunctionConfiguration": _on("lambda:GetFunctionConfiguration", "function", "FunctionName", ":"),
    "logs:FilterLogEvents": _on("logs:FilterLogEvents", "log-group", "logGroupName", ":"),
    "monitoring:DescribeAlarms": _on("cloudwatch:DescribeAlarms", "alarm", "AlarmName", ":"),
    "monitoring:GetDashboard": _global("cloudwatch:GetDashboard", "dashboard", "DashboardName"),
    "monitoring:GetMetricData": _on_anything("cloudwatch:GetMetricData"),
    "monitoring:SetAlarmState": _on("cloudwatch:SetAlarmState", "alarm", "AlarmName", ":"),
    "monitoring:PutMetricData": _put_metric_data,
    "rds:DescribeDBInstances": _on("rds:DescribeDBInstances", "db", "DBInstanceIdentifier", ":"),
    "secretsmanager:DescribeSecret": _describe_secret,
    "secretsmanager:GetSecretValue": _get_secret,
    "sns:ListSubscriptionsByTopic": _on("sns:ListSubscriptionsByTopic", "", "TopicArn", ""),
    "sns:Publish": _publish,
    "sns:PublishBatch": _publish,
    "sqs:ChangeMessageVisibility": _on_queue("ChangeMessageVisibility"),
    "sqs:DeleteMessage": _on_queue("DeleteMessage"),
    "sqs:ReceiveMessage": _on_queue("ReceiveMessage"),
    "ssm:CancelCommand": _on_anything("ssm:CancelCommand"),
    "ssm:GetCommandInvocation": _on_anything("ssm:GetCommandInvocation"),
    "ssm:SendCommand": _send_command,
    "ssm:GetParameter": _get_parameter,
    # Everyone may call it: it needs no permission.
    "sts:GetCallerIdentity": lambda parameters: iter(()),
}
