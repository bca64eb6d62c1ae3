"""Which rights does a call take? By AWS's Service Authorization Reference, for the calls that deployed programs make.

Each is the action on its resource, what the action needs beside it (a role that is passed on, the key that something
is encrypted with), and the condition keys that it brings. Calls that are not here are refused, so that none is
passed over: a new one is a line in ``NEEDS``.

https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emulators.aws.iam_policies import Call
from emulators.aws.machine import ACCOUNT, REGION

Parameters = Mapping[str, Any]
READ_KEY, WRITE_KEY = ("kms:Decrypt",), ("kms:Decrypt", "kms:GenerateDataKey")
# Which of a bucket's own keys an action on its objects takes.
OBJECT_KEYS = {"s3:GetObject": READ_KEY, "s3:PutObject": WRITE_KEY}
ENTERS = ("glue:BatchCreatePartition", "glue:BatchGetPartition", "glue:CreateTable", "glue:UpdateTable")


def needs(service: str, operation: str, given: Parameters) -> list[Call]:
    """What a call takes; ``service`` is the name that it is signed for. Raises ValueError for one that is not here."""
    if (name := f"{service}:{operation}") not in NEEDS:
        raise ValueError(f"emulators/aws/calls.py does not say what {name} takes")
    return list(NEEDS[name](given))


def of_objects(action: str, bucket: str, key: str | None = None) -> Iterator[Call]:
    """An action of S3's on a bucket, or on an object and the key that the bucket encrypts it with."""
    yield Call(action, f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}")
    for needed in OBJECT_KEYS.get(action, ()):
        yield from of_key(needed, _bucket_key(bucket), "s3")


def of_uri(action: str, uri: str) -> Iterator[Call]:
    """The same for an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    yield from of_objects(action, bucket, key)


def of_key(action: str, key: str | None, by: str) -> Iterator[Call]:
    """An action on a key of the account's own, by the service that is asked for something else."""
    if key is not None:
        resource = key if key.startswith("arn:") else _arn("kms", f"key/{key}")
        yield Call(action, resource, {"kms:ViaService": (f"{by}.{REGION}.amazonaws.com",)})


def of_crawl(crawler: Any) -> Iterator[Call]:
    """What a crawler does as its role, beside reading what it crawls."""
    for target in crawler.targets.get("CatalogTargets", ()):
        for name in target["Tables"]:
            storage = crawler.backend.get_table(target["DatabaseName"], name).as_dict()["StorageDescriptor"]
            yield from _of_table(("glue:GetTable", *ENTERS[:2]), {"DatabaseName": target["DatabaseName"], "Name": name})
            yield from _of_prefix(storage["Location"])
    for target in crawler.targets.get("JdbcTargets", ()):
        yield Call("glue:GetConnection", _arn("glue", f"connection/{target['ConnectionName']}"))
        found = crawler.backend.get_connection(ACCOUNT, target["ConnectionName"], "").connection_properties
        yield from _of_secret({"SecretId": found["SECRET_ID"]})
        yield from _of_table(ENTERS[2:], {"DatabaseName": crawler.database_name, "Name": f"{crawler.table_prefix}any"})


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def _bucket_key(bucket: str) -> str | None:
    from moto.s3.models import s3_backends

    rules = (s3_backends[ACCOUNT]["aws"].get_bucket(bucket).encryption or {}).get("Rule", [])
    rule = rules[0] if isinstance(rules, list) and rules else rules
    found = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") if rule else None
    return str(found) if found else None


def _of_prefix(uri: str) -> Iterator[Call]:
    """All objects under a place are listed and read."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    yield Call("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": (prefix,)})
    yield from of_objects("s3:GetObject", bucket, f"{prefix}any")


def _of_secret(given: Parameters) -> Iterator[Call]:
    from moto.secretsmanager.models import secretsmanager_backends

    secret = secretsmanager_backends[ACCOUNT][REGION].secrets.get(given["SecretId"])
    yield Call("secretsmanager:GetSecretValue", secret.arn if secret else _arn("secretsmanager", given["SecretId"]))
    yield from of_key("kms:Decrypt", secret and secret.kms_key_id, "secretsmanager")


def _of_topic(given: Parameters) -> Iterator[Call]:
    from moto.sns.models import sns_backends

    yield Call("sns:Publish", given["TopicArn"])
    topic = sns_backends[ACCOUNT][REGION].topics.get(given["TopicArn"])
    for action in WRITE_KEY:
        yield from of_key(action, topic and (topic.kms_master_key_id or None), "sns")


def _of_queue(action: str) -> Callable[[Parameters], Iterator[Call]]:
    """An action on the messages of a queue, and the key that opens them."""

    def found(given: Parameters) -> Iterator[Call]:
        from moto.sqs.models import sqs_backends

        name = str(given["QueueUrl"]).rsplit("/", 1)[-1]
        yield Call(f"sqs:{action}", _arn("sqs", name))
        queue = sqs_backends[ACCOUNT][REGION].queues.get(name)
        if action == "ReceiveMessage":
            yield from of_key("kms:Decrypt", queue and queue.kms_master_key_id, "sqs")

    return found


def _of_table(actions: tuple[str, ...], given: Parameters) -> Iterator[Call]:
    """Actions of Glue's on a table, which take the same on its database and on the catalog."""
    database, table = given["DatabaseName"], given.get("TableName") or given.get("Name")
    for action in actions:
        for name in ("catalog", f"database/{database}", f"table/{database}/{table}"):
            yield Call(action, _arn("glue", name))


def _of_new_cluster(given: Parameters) -> Iterator[Call]:
    tags = {f"elasticmapreduce:RequestTag/{tag['Key']}": (tag["Value"],) for tag in given.get("Tags", ())}
    yield Call("elasticmapreduce:RunJobFlow", context=tags)
    if tags:
        yield Call("elasticmapreduce:AddTags", _arn("elasticmapreduce", "cluster/*"), tags)
    yield _pass_on(given["ServiceRole"], "elasticmapreduce")
    yield _pass_on(role_of_instances(given["JobFlowRole"]), "ec2")


def _of_new_definition(given: Parameters) -> Iterator[Call]:
    yield Call("glue:UpdateJob", _arn("glue", f"job/{given['JobName']}"))
    yield _pass_on(given["JobUpdate"]["Role"], "glue")


def _pass_on(role: str, service: str) -> Call:
    """A role's name or ARN is given to a service, which then works by it."""
    name = role.rsplit("/", 1)[-1]
    passed_to = {"iam:PassedToService": (f"{service}.amazonaws.com",)}
    return Call("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{name}", passed_to)


def role_of_instances(profile: str) -> str:
    """The name of the role in an instance profile."""
    from moto.iam.models import iam_backends

    return str(iam_backends[ACCOUNT]["aws"].get_instance_profile(profile.rsplit("/", 1)[-1]).roles[0].name)


def _of_cluster(action: str) -> Callable[[Parameters], Iterator[Call]]:
    def found(given: Parameters) -> Iterator[Call]:
        from moto.emr.models import emr_backends

        ids = given.get("JobFlowIds") or [given.get("ClusterId") or given["JobFlowId"]]
        for cluster in ids:
            made = emr_backends[ACCOUNT][REGION].clusters.get(cluster)
            tags = made.tags if made else ()
            keys = {f"elasticmapreduce:ResourceTag/{tag['Key']}": (tag["Value"],) for tag in tags}
            yield Call(f"elasticmapreduce:{action}", _arn("elasticmapreduce", f"cluster/{cluster}"), keys)

    return found


def _named(action: str, kind: str, parameter: str, separator: str = "/") -> Callable[[Parameters], Iterator[Call]]:
    """An action on the one thing of that kind that a parameter names, or on all of them where it names none."""

    def found(given: Parameters) -> Iterator[Call]:
        name = str(given.get(parameter) or "*")
        arn = name if name.startswith("arn:") else _arn(action.split(":")[0], f"{kind}{separator}{name}")
        yield Call(action, arn)

    return found


def _anything(action: str) -> Callable[[Parameters], Iterator[Call]]:
    return lambda given: iter([Call(action)])


def _of_parameter(given: Parameters) -> Iterator[Call]:
    yield Call("ssm:GetParameter", _arn("ssm", f"parameter/{given['Name'].removeprefix('/')}"))


def _of_metrics(given: Parameters) -> Iterator[Call]:
    yield Call("cloudwatch:PutMetricData", context={"cloudwatch:namespace": (given["Namespace"],)})


def _of_query(given: Parameters) -> Iterator[Call]:
    """A query takes on the caller's own account what it reads, and the place of its answer."""
    from moto.athena.models import athena_backends
    from moto.glue.models import glue_backends

    group = given.get("WorkGroup", "primary")
    yield Call("athena:StartQueryExecution", _arn("athena", f"workgroup/{group}"))
    database = given["QueryExecutionContext"]["Database"]
    for name, table in glue_backends[ACCOUNT][REGION].get_database(database).tables.items():
        if name in given["QueryString"]:
            yield from _of_table(("glue:GetTable", "glue:GetPartitions"), {"DatabaseName": database, "Name": name})
            yield from _of_prefix(table.as_dict()["StorageDescriptor"]["Location"])
    settings = athena_backends[ACCOUNT][REGION].work_groups[group].configuration["ResultConfiguration"]
    place = f"{settings['OutputLocation']}any"
    yield Call("s3:GetBucketLocation", f"arn:aws:s3:::{place.removeprefix('s3://').split('/')[0]}")
    yield from of_uri("s3:PutObject", place)
    yield from of_uri("s3:GetObject", place)


def _of_execution(action: str) -> Callable[[Parameters], Iterator[Call]]:
    def found(given: Parameters) -> Iterator[Call]:
        from moto.athena.models import athena_backends

        execution = athena_backends[ACCOUNT][REGION].executions[given["QueryExecutionId"]]
        yield Call(f"athena:{action}", _arn("athena", f"workgroup/{execution.workgroup.name}"))

    return found


NEEDS: Mapping[str, Callable[[Parameters], Iterator[Call]]] = {
    "athena:GetQueryExecution": _of_execution("GetQueryExecution"),
    "athena:GetQueryResults": _of_execution("GetQueryResults"),
    "athena:GetWorkGroup": _named("athena:GetWorkGroup", "workgroup", "WorkGroup"),
    "athena:StartQueryExecution": _of_query,
    "athena:StopQueryExecution": _of_execution("StopQueryExecution"),
    "elasticmapreduce:AddJobFlowSteps": _of_cluster("AddJobFlowSteps"),
    "elasticmapreduce:CancelSteps": _of_cluster("CancelSteps"),
    "elasticmapreduce:DescribeCluster": _of_cluster("DescribeCluster"),
    "elasticmapreduce:DescribeStep": _of_cluster("DescribeStep"),
    "elasticmapreduce:ListClusters": _anything("elasticmapreduce:ListClusters"),
    "elasticmapreduce:ListSteps": _of_cluster("ListSteps"),
    "elasticmapreduce:RunJobFlow": _of_new_cluster,
    "elasticmapreduce:TerminateJobFlows": _of_cluster("TerminateJobFlows"),
    "glue:BatchStopJobRun": _named("glue:BatchStopJobRun", "job", "JobName"),
    "glue:GetCrawler": _named("glue:GetCrawler", "crawler", "Name"),
    "glue:GetCrawlerMetrics": _anything("glue:GetCrawlerMetrics"),
    "glue:GetJob": _named("glue:GetJob", "job", "JobName"),
    "glue:GetJobRun": _named("glue:GetJobRun", "job", "JobName"),
    "glue:GetJobRuns": _named("glue:GetJobRuns", "job", "JobName"),
    "glue:StartCrawler": _named("glue:StartCrawler", "crawler", "Name"),
    "glue:StartJobRun": _named("glue:StartJobRun", "job", "JobName"),
    "glue:UpdateJob": _of_new_definition,
    "lambda:Invoke": _named("lambda:InvokeFunction", "function", "FunctionName", ":"),
    "monitoring:PutMetricData": _of_metrics,
    "rds:DescribeDBInstances": _named("rds:DescribeDBInstances", "db", "DBInstanceIdentifier", ":"),
    "secretsmanager:GetSecretValue": _of_secret,
    "sns:Publish": _of_topic,
    "sns:PublishBatch": _of_topic,
    "sqs:DeleteMessage": _of_queue("DeleteMessage"),
    "sqs:ReceiveMessage": _of_queue("ReceiveMessage"),
    "ssm:GetParameter": _of_parameter,
    # Nobody is refused to ask who he is.
    "sts:GetCallerIdentity": lambda given: iter(()),
}
