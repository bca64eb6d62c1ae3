"""Ingestion: the function that runs ticks and asks for corporate actions, its schedules, and the queue of failures.

The function gets its settings as environment variables, not from the SSM parameter. They are deployed together with its
code, and a change of them restarts it. With ``host`` as the runner, Airflow's host runs the ticks.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from barflow import contract
from stacks import outputs
from stacks.alerts import AlertsStack
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import INGEST
from stacks.constructs.grants import allow_reading_channel_secrets, allow_reading_secrets
from stacks.constructs.python_function import PythonFunction
from stacks.platform import Platform

NEW_YORK = cdk.TimeZone.of("America/New_York")
# Settings that a tick does not read.
OF_OTHER_HOPS = ("BARFLOW_WAREHOUSE_DSN", "BARFLOW_LAKE_URI", "BARFLOW_STAGING_DAYS", "BARFLOW_REJECTED_DAYS")
LAST_MINUTE = 10  # after 16:00: the last tick, which takes the closing bars


class IngestionStack(BarflowStack):
    """The queue of ``failed_ticks``, and the ``function_name`` when ``ingest.runner`` is lambda.

    Other stacks use the name and not the function: an export of it could not be removed when the runner changes.
    """

    def __init__(
        self,
        scope: Construct,
        platform: Platform,
        *,
        alerts: AlertsStack,
        settings: contract.PipelineSettings,
    ) -> None:
        """Create the queue. Create the function and its schedules when the runner is lambda."""
        environment = platform.environment
        super().__init__(scope, environment, description="ingestion")
        self._platform, self._alerts = platform, alerts
        self.failed_ticks = sqs.Queue(
            self,
            "FailedTicks",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        acknowledge(self.failed_ticks, "it is a dead-letter queue itself; an operator redrives it", "AwsSolutions-SQS3")
        self.function_name = f"barflow-{environment.name}-ingest" if environment.ingest.runner == "lambda" else None
        if self.function_name:
            made = self._function(self.function_name, settings)
            self._schedules(made.function, environment.ingest.every_minutes)
            self.output(outputs.INGEST_FUNCTION, self.function_name)
        self.contract = contract.Ingestion(runner=environment.ingest.runner, function_name=self.function_name)
        self.output(outputs.FAILED_TICKS_QUEUE, self.failed_ticks.queue_url)

    def _function(self, name: str, settings: contract.PipelineSettings) -> PythonFunction:
        config = self.environment_config.ingest
        variables = {name: value for name, value in settings.environment().items() if name not in OF_OTHER_HOPS}
        made = PythonFunction(
            self,
            "Ingest",
            bundle=INGEST,
            description="Runs a tick: fetches, validates and stages the newest bars",
            platform=self._platform,
            memory_mb=config.memory_mb,
            timeout=cdk.Duration.seconds(config.timeout_seconds),
            environment=variables,
            name=name,
            alone=True,
            retry_attempts=2,
            max_event_age=cdk.Duration.minutes(15),  # after that, a later tick has fetched the same bars
            dead_letter_queue=self.failed_ticks,
        )
        secrets = self._platform.secrets
        allow_reading_secrets(
            made.role, self._platform.keys.secrets, secrets.twelvedata, secrets.mongodb, secrets.slack
        )
        secrets.allow_lineage(made.role)
        allow_reading_channel_secrets(made.role, self.environment_config)
        self._alerts.allow_publish(made.role)
        return made

    def _schedules(self, function: lambda_.IFunction, every: int) -> None:
        """Schedule ticks from 09:30 to 16:10 New York time on weekdays, and what is due before and after them.

        The handler skips holidays, the rest of half days, and ticks before the first bar. Corporate actions are due
        before the open, and daily bars after the close. Each of these invocations resumes where the last one stopped.
        """
        logical_id, _ = self.resolve(function.function_arn)["Fn::GetAtt"]
        acknowledge(
            self,
            "the scheduler invokes this one function, in any of its versions",
            f"AwsSolutions-IAM5[Resource::<{logical_id}.Arn>:*]",
        )
        closing = sorted({*range(0, LAST_MINUTE, every), LAST_MINUTE})
        tick: dict[str, bool] = {}
        actions = {"actions": True}
        for name, hour, minute, payload, what in (
            ("Opening", "9", f"30/{every}", tick, f"a tick every {every} minutes"),
            ("Session", "10-15", f"0/{every}", tick, f"a tick every {every} minutes"),
            ("Closing", "16", ",".join(map(str, closing)), tick, f"a tick every {every} minutes"),
            ("BeforeOpen", "8", "0/5", actions, "the corporate actions that are due"),
            ("AfterClose", "16", "25/5", actions, "the daily bars that are due"),
        ):
            scheduler.Schedule(
                self,
                name,
                description=f"Barflow {self.environment_config.name}: {what}",
                schedule=scheduler.ScheduleExpression.cron(
                    minute=minute, hour=hour, week_day="MON-FRI", time_zone=NEW_YORK
                ),
                time_window=scheduler.TimeWindow.off(),
                target=targets.LambdaInvoke(
                    function,
                    dead_letter_queue=self.failed_ticks,
                    retry_attempts=2,
                    max_event_age=cdk.Duration.minutes(every),
                    input=scheduler.ScheduleTargetInput.from_object(payload),
                ),
            )
