"""The alarms. Each describes the fault and where to look, and notifies the operations topic when it starts and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_rds as rds
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs

from barflow import metric_names as metrics
from config.environment import AlarmConfig
from stacks.base import BarflowStack

KEEP_STATE = cloudwatch.TreatMissingData.IGNORE
MISSING_IS_FINE = cloudwatch.TreatMissingData.NOT_BREACHING
MISSING_IS_BAD = cloudwatch.TreatMissingData.BREACHING
ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
# Hours (UTC) that are within a session in summer and in winter.
FIRST_HOUR, LAST_HOUR = 15, 19


class Alarms:
    """Creates the alarms of a stack. The thresholds are in the environment's AlarmConfig."""

    def __init__(self, stack: BarflowStack, config: AlarmConfig, topic: sns.ITopic) -> None:
        """Take the thresholds from ``config``. The alarms notify ``topic``."""
        self._stack, self._config = stack, config
        self._notify = actions.SnsAction(topic)

    def of_bars(self, env: str) -> None:
        """Create alarms of late bars, rejected bars and refused ticks. The ticks count them."""
        stale = self._config.stale_minutes
        self._alarm(
            "StaleBars",
            _metric(env, metrics.STALEST, "Maximum"),
            stale * 60,
            f"A symbol had no new bar for {stale} minutes of an open session. See the runbook: bars stopped coming.",
        )
        share = cloudwatch.MathExpression(
            expression="100 * rejected / received",
            label="rejected, percent",
            using_metrics={
                "rejected": _metric(env, metrics.BARS_REJECTED, "Sum"),
                "received": _metric(env, metrics.BARS_RECEIVED, "Sum"),
            },
            period=cdk.Duration.minutes(15),
        )
        self._alarm(
            "RejectedShare",
            share,
            self._config.rejected_percent,
            f"More than {self._config.rejected_percent:g} % of the received bars were rejected. "
            "`barflow rejected list` shows them with their reason codes. After a fix, run `barflow rejected replay`.",
        )
        self._alarm(
            "TicksRefused",
            _metric(env, metrics.TICKS_REFUSED, "Sum"),
            0,
            "Twelve Data refused a tick entirely: the key, the plan or the day's credits. See the log of the tick.",
        )

    def of_archive(self, env: str) -> None:
        """Create an alarm of data quality rules that fail. It lasts until they hold in a later evaluation."""
        self._alarm(
            "ArchiveQuality",
            _metric(env, metrics.RULES_FAILED, "Maximum"),
            0,
            "Bars of the archive break a data quality rule. Slack has the rules. See the runbook: data quality.",
            missing=KEEP_STATE,
        )

    def of_function(self, name: str) -> None:
        """Create alarms of ticks that fail and of a schedule that stops. ``name`` is the ingest function's."""
        self._alarm(
            "TickErrors",
            _function_metric(name, "Errors", cdk.Duration.minutes(5)),
            0,
            "A tick failed. Lambda retries twice. A tick that still fails goes to the queue of failed ticks.",
        )
        ticks = cloudwatch.MathExpression(
            expression=f"IF(HOUR(m) >= {FIRST_HOUR} AND HOUR(m) <= {LAST_HOUR} AND DAY(m) <= 5, FILL(m, 0), 1)",
            label="ticks tried",
            using_metrics={"m": _function_metric(name, "Invocations", cdk.Duration.minutes(15))},
            period=cdk.Duration.minutes(15),
        )
        self._alarm(
            "NoTicks",
            ticks,
            1,
            "The ingest function was not invoked for 15 minutes of a session. Check that its schedules are enabled.",
            comparison=BELOW,
        )

    def of_failed_ticks(self, queue: sqs.IQueue) -> None:
        """Create the alarm of ticks that failed three times."""
        self._alarm(
            "FailedTicks",
            queue.metric_approximate_number_of_messages_visible(period=cdk.Duration.minutes(5)),
            0,
            "Ticks that failed three times are in the queue. See the runbook: failed ticks.",
        )

    def of_bots(self, queues: Mapping[str, str]) -> None:
        """Create the alarm of alerts that a bot failed to handle. ``queues`` names the dead-letter queues by bot."""
        if not queues:
            return
        waiting = {
            f"bot{number}": cloudwatch.Metric(
                namespace="AWS/SQS",
                metric_name="ApproximateNumberOfMessagesVisible",
                dimensions_map={"QueueName": name},
                statistic="Maximum",
                period=cdk.Duration.minutes(5),
            )
            for number, name in enumerate(queues.values())
        }
        together = cloudwatch.MathExpression(
            # An idle queue has no value. SUM leaves it out; a plus would have no value either.
            expression=f"SUM([{','.join(waiting)}])",
            label="alerts that failed",
            using_metrics=waiting,
            period=cdk.Duration.minutes(5),
        )
        self._alarm(
            "FailedAlerts",
            together,
            0,
            f"Alerts are in a bot's dead-letter queue ({', '.join(queues)}). The bot failed to handle them five times, "
            "or the topic could not deliver them to its queue. See the runbook: price alerts.",
        )

    def of_database(self, instance: rds.IDatabaseInstance) -> None:
        """Create alarms of the warehouse's storage, CPU and connections."""
        config, period = self._config, cdk.Duration.minutes(5)
        self._alarm(
            "DatabaseStorage",
            instance.metric_free_storage_space(period=period, statistic="Minimum"),
            config.database_free_gb * 1024**3,
            f"The warehouse has less than {config.database_free_gb:g} GB free. Its storage grows automatically "
            "up to its maximum.",
            comparison=BELOW,
        )
        self._alarm(
            "DatabaseCpu",
            instance.metric_cpu_utilization(period=period),
            config.database_cpu_percent,
            f"The warehouse's CPU was above {config.database_cpu_percent:g} % for 15 minutes.",
            periods=3,
        )
        self._alarm(
            "DatabaseConnections",
            instance.metric_database_connections(period=period, statistic="Maximum"),
            config.database_connections,
            f"The warehouse has more than {config.database_connections} connections.",
        )

    def of_unposted_messages(self, queue: sqs.IQueue) -> None:
        """Create the alarm of messages that Slack did not accept. It arrives by e-mail."""
        self._alarm(
            "UnpostedMessages",
            queue.metric_approximate_number_of_messages_visible(period=cdk.Duration.minutes(5)),
            0,
            "Slack did not accept messages in three tries. Check the bot's token, and that the bot is in the channel. "
            "See the runbook: messages that were not posted.",
        )

    def of_rotations(self, functions: Sequence[str]) -> None:
        """Create the alarm of password rotations that fail. ``functions`` are the names of AWS's functions."""
        errors = {
            f"rotation{number}": _function_metric(name, "Errors", cdk.Duration.hours(1))
            for number, name in enumerate(functions)
        }
        together = cloudwatch.MathExpression(
            expression=f"SUM([{','.join(errors)}])",
            label="rotations that failed",
            using_metrics=errors,
            period=cdk.Duration.hours(1),
        )
        self._alarm(
            "RotationErrors",
            together,
            0,
            "The rotation of a database password failed, and its user may not be able to log in. See the log groups "
            f"/aws/lambda/{', /aws/lambda/'.join(functions)}, and the runbook: passwords of the warehouse.",
        )

    def of_host(self, instance_id: str) -> None:
        """Create alarms of the host's status checks. EC2 recovers a host whose hardware fails."""
        for name, metric, advice, extra in (
            ("HostHardware", "StatusCheckFailed_System", "EC2 recovers it on other hardware.", [_recover()]),
            ("HostDown", "StatusCheckFailed_Instance", "Restart it. If it stays down, deploy the host again.", []),
        ):
            alarm = self._alarm(
                name,
                cloudwatch.Metric(
                    namespace="AWS/EC2",
                    metric_name=metric,
                    dimensions_map={"InstanceId": instance_id},
                    statistic="Maximum",
                    period=cdk.Duration.minutes(1),
                ),
                0,
                f"Airflow's host fails its status check. {advice}",
                periods=3,
                missing=MISSING_IS_BAD,
            )
            for action in extra:
                alarm.add_alarm_action(action)

    def of_host_parts(self, env: str) -> None:
        """Create alarms of what the host checks every five minutes. A missing check raises the alarm."""
        self._alarm(
            "HostParts",
            _metric(env, metrics.HOST_PARTS_DOWN, "Minimum"),
            0,
            "For 15 minutes a part of Airflow or the analysts' page did not answer, or the host's check did not run. "
            "The host's log names the part. See the runbook: the host, Airflow's page and the analysts' page.",
            periods=3,
            missing=MISSING_IS_BAD,
        )
        self._alarm(
            "UndeliveredAlerts",
            _metric(env, metrics.UNDELIVERED_ALERT_AGE, "Maximum"),
            self._config.undelivered_minutes * 60,
            f"A price alert was not delivered for {self._config.undelivered_minutes} minutes. `barflow alerts list "
            "--undelivered` on the host shows the alert and the reason. See the runbook: price alerts.",
        )

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        description: str,
        *,
        comparison: cloudwatch.ComparisonOperator = ABOVE,
        periods: int = 1,
        missing: cloudwatch.TreatMissingData = MISSING_IS_FINE,
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self._stack,
            name,
            alarm_name=f"Barflow-{self._stack.environment_config.name}-{name}",
            alarm_description=description,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._notify)
        alarm.add_ok_action(self._notify)
        return alarm


def _metric(env: str, name: str, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=metrics.NAMESPACE,
        metric_name=name,
        dimensions_map={metrics.ENVIRONMENT: env},
        statistic=statistic,
        period=cdk.Duration.minutes(5),
    )


def _function_metric(name: str, metric: str, period: cdk.Duration) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name=metric,
        dimensions_map={"FunctionName": name},
        statistic="Sum",
        period=period,
    )


def _recover() -> cloudwatch.IAlarmAction:
    return actions.Ec2Action(actions.Ec2InstanceAction.RECOVER)
