"""Alarms and failures, posted to Slack and e-mail through one topic; two dashboards and a budget."""

from __future__ import annotations

import aws_cdk as cdk
import cdk_monitoring_constructs as monitoring
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from barflow import contract
from barflow import metric_names as metrics
from config.environment import Environment
from stacks import outputs
from stacks.alerts import AlertsStack
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import NOTIFY
from stacks.catalog import CatalogStack
from stacks.constructs.alarms import Alarms
from stacks.constructs.grants import allow, allow_key, allow_reading_secrets
from stacks.constructs.python_function import PythonFunction
from stacks.database import DatabaseStack
from stacks.ingestion import IngestionStack
from stacks.orchestration import OrchestrationStack
from stacks.platform import Platform

TICK = cdk.Duration.minutes(5)
CLUSTER_PREFIX = "barflow"


class ObservabilityStack(BarflowStack):
    """The ``topic`` of alarms and failures, and the dashboards."""

    def __init__(
        self,
        scope: Construct,
        platform: Platform,
        *,
        database: DatabaseStack,
        alerts: AlertsStack,
        ingestion: IngestionStack,
        catalog: CatalogStack,
        orchestration: OrchestrationStack,
    ) -> None:
        """Create the topic, the alarms, the rules for failures, the dashboards and the budget."""
        environment = platform.environment
        super().__init__(scope, environment, description="alarms, dashboards and budget")
        self._platform, self._ingestion = platform, ingestion
        self.topic = self._topic(environment)
        self._unposted = self._queue()
        self._notify = self._slack(environment)
        alarms = Alarms(self, environment.alarms, self.topic)
        alarms.of_bars(environment.name)
        alarms.of_archive(environment.name)
        if ingestion.function_name:
            alarms.of_function(ingestion.function_name)
        alarms.of_failed_ticks(ingestion.failed_ticks)
        alarms.of_bots(alerts.failed_names)
        alarms.of_database(database.instance)
        # Not the instance itself: CloudFormation cannot replace what another stack imports.
        self.add_stack_dependency(orchestration)
        self._host_id = ssm.StringParameter.value_for_string_parameter(
            self, contract.host_parameter_name(environment.name)
        )
        alarms.of_host(self._host_id)
        alarms.of_host_parts(environment.name)
        alarms.of_unposted_messages(self._unposted)
        alarms.of_rotations(database.rotations)
        self._failures(catalog.contract.job)
        self._business_dashboard(environment.name)
        self._technical_dashboard(database, catalog)
        self._budget(environment)
        self.output(outputs.OPERATIONS_TOPIC, self.topic.topic_arn)
        self.output(outputs.UNPOSTED_QUEUE, self._unposted.queue_url)

    def _topic(self, environment: Environment) -> sns.Topic:
        topic = sns.Topic(self, "Operations", master_key=self._platform.keys.data, enforce_ssl=True)
        for address in environment.alarms.emails:
            topic.add_subscription(subscriptions.EmailSubscription(address))
        for service in ("budgets", "cloudwatch"):
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=f"Of{service.title()}",
                    principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
                    actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )
        return topic

    def _queue(self) -> sqs.Queue:
        queue = sqs.Queue(
            self,
            "Unposted",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        acknowledge(queue, "it is a dead-letter queue itself; an operator reads it", "AwsSolutions-SQS3")
        return queue

    def _slack(self, environment: Environment) -> PythonFunction:
        secrets = self._platform.secrets
        made = PythonFunction(
            self,
            "TellSlack",
            bundle=NOTIFY,
            description="Posts the messages of the operations topic to Slack",
            platform=self._platform,
            memory_mb=256,
            timeout=cdk.Duration.seconds(30),
            environment={
                "SLACK_SECRET": secrets.slack.secret_name,
                "SLACK_CHANNEL": environment.alarms.slack_channel,
                "OPERATIONS_TOPIC": self.topic.topic_arn,
            },
            alone=True,
            retry_attempts=2,
            dead_letter_queue=self._unposted,
        )
        allow_reading_secrets(made.role, self._platform.keys.secrets, secrets.slack)
        allow(made.role, ["sns:Publish"], [self.topic.topic_arn])
        allow_key(made.role, self._platform.keys.data, ["kms:Decrypt", "kms:GenerateDataKey"], service="sns")
        self.topic.add_subscription(subscriptions.LambdaSubscription(made.function))
        return made

    def _failures(self, job: str) -> None:
        """Send the failure events of AWS for jobs, steps and clusters to the topic, through the notify function.

        EventBridge can publish to a topic only under policies without a condition on the source (docs/decisions/0035).
        """
        step = {"state": ["FAILED"], "name": [f"bars to Parquet ({self.environment_config.name})"]}
        for name, source, detail_type, detail in (
            ("GlueFailure", "aws.glue", "Glue Job State Change", {"jobName": [job], "state": ["FAILED", "TIMEOUT"]}),
            ("StepFailure", "aws.emr", "EMR Step Status Change", step),
            (
                "ClusterFailure",
                "aws.emr",
                "EMR Cluster State Change",
                {
                    "state": ["TERMINATED_WITH_ERRORS"],
                    "name": [{"prefix": f"{CLUSTER_PREFIX}-{self.environment_config.name}-"}],
                },
            ),
        ):
            events.Rule(
                self,
                name,
                description=f"Barflow {self.environment_config.name}: {detail_type} to the operations topic",
                event_pattern=events.EventPattern(source=[source], detail_type=[detail_type], detail=detail),
                targets=[targets.LambdaFunction(self._notify.function, dead_letter_queue=self._unposted)],
            )

    def _business_dashboard(self, env: str) -> None:
        """Create the dashboard of bars, their freshness, loads, alerts and costs."""
        by_symbol = ",".join((metrics.NAMESPACE, metrics.ENVIRONMENT, metrics.SYMBOL))
        search = f'{{{by_symbol}}} MetricName="{metrics.FRESHNESS}" {metrics.ENVIRONMENT}="{env}"'
        freshness = cloudwatch.SearchExpression(expression=f"SEARCH('{search}', 'Maximum', 300)", label="", period=TICK)
        board = cloudwatch.Dashboard(self, "Business", dashboard_name=f"Barflow-{env}-Business")
        board.add_widgets(
            _graph("Bars, each tick", env, metrics.BARS_RECEIVED, metrics.BARS_INGESTED, metrics.BARS_REJECTED),
            cloudwatch.GraphWidget(title="Freshness by symbol, seconds", width=12, left=[freshness]),
        )
        board.add_widgets(
            _graph("Alerts fired", env, metrics.ALERTS_FIRED, width=8),
            _graph("Rows loaded, each run", env, metrics.ROWS_LOADED, width=8),
            _graph("Cost of each run, dollars", env, metrics.RUN_COST, width=8),
        )
        self.output(outputs.BUSINESS_DASHBOARD, board.dashboard_name)

    def _technical_dashboard(self, database: DatabaseStack, catalog: CatalogStack) -> None:
        """Create the dashboard of the resources, with widgets of cdk-monitoring-constructs."""
        name = f"Barflow-{self.environment_config.name}-Technical"
        facade = monitoring.MonitoringFacade(
            self,
            "Technical",
            dashboard_factory=monitoring.DefaultDashboardFactory(
                self, "TechnicalBoards", dashboard_name_prefix=name, create_summary_dashboard=False,
                create_alarm_dashboard=False,
            ),
        )  # fmt: skip
        if ingest := self._ingestion.function_name:
            function = lambda_.Function.from_function_name(self, "IngestFunction", ingest)
            facade.monitor_lambda_function(alarm_friendly_name="Ingest", lambda_function=function)
        facade.monitor_sqs_queue(alarm_friendly_name="FailedTicks", queue=self._ingestion.failed_ticks)
        facade.monitor_custom(
            alarm_friendly_name="Aggregate",
            metric_groups=[
                monitoring.CustomMetricGroup(title="Glue job's tasks", metrics=_glue_tasks(catalog.contract.job))
            ],
        )
        facade.monitor_rds_instance(alarm_friendly_name="Warehouse", instance=database.instance)
        facade.monitor_ec2_instances(
            alarm_friendly_name="Host",
            human_readable_name="Airflow's host",
            instance_ids=[self._host_id],
        )
        self.output(outputs.TECHNICAL_DASHBOARD, name)

    def _budget(self, environment: Environment) -> None:
        """Notify at 80 % of the budget, and when the forecast of a month exceeds it."""
        subscribers = [
            budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=self.topic.topic_arn),
            *(
                budgets.CfnBudget.SubscriberProperty(subscription_type="EMAIL", address=address)
                for address in environment.alarms.emails
            ),
        ]
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=f"barflow-{environment.name}",
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=environment.alarms.budget_usd, unit="USD"),
                cost_filters={"TagKeyValue": [f"user:barflow:env${environment.name}"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN", notification_type=kind, threshold=percent
                    ),
                    subscribers=subscribers,
                )
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
        )


def _graph(title: str, env: str, *names: str, width: int = 12) -> cloudwatch.GraphWidget:
    found = [
        cloudwatch.Metric(
            namespace=metrics.NAMESPACE,
            metric_name=name,
            dimensions_map={metrics.ENVIRONMENT: env},
            statistic="Sum",
            period=TICK,
        )
        for name in names
    ]
    return cloudwatch.GraphWidget(title=title, width=width, left=found)


def _glue_tasks(job: str) -> list[cloudwatch.Metric]:
    """Return the metrics of a Glue job's tasks. The library's widget does not accept a name that is a token."""
    return [
        cloudwatch.Metric(
            namespace="Glue",
            metric_name=f"glue.driver.aggregate.{name}",
            dimensions_map={"JobName": job, "JobRunId": "ALL", "Type": "count"},
            statistic="Sum",
            period=TICK,
        )
        for name in ("numCompletedTasks", "numFailedTasks")
    ]
