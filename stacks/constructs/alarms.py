"""The alarms: each says what is wrong and where to look, and tells the operations topic when it comes and goes."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_rds as rds
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs

from barflow import metric_names as metrics
from config.environment import AlarmConfig
from stacks.base import BarflowStack

MISSING_IS_FINE = cloudwatch.TreatMissingData.NOT_BREACHING
MISSING_IS_BAD = cloudwatch.TreatMissingData.BREACHING
ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
# The hours of the day (UTC) within every session, in summer and in winter.
FIRST_HOUR, LAST_HOUR = 15, 19


class Alarms:
    """Makes the alarms of a stack. What counts as too much stands in the environment's AlarmConfig."""

    def __init__(self, stack: BarflowStack, config: AlarmConfig, topic: sns.ITopic) -> None:
        self._stack, self._config = stack, config
        self._tell = actions.SnsAction(topic)

    def of_bars(self, env: str) -> None:
        """Bars that do not come, bars that are refused, ticks that the vendor refuses: whoever ticks counts them."""
        stale = self._config.stale_minutes
        self._alarm(
            "StaleBars",
            _of(env, metrics.STALEST, "Maximum"),
            stale * 60,
            f"A symbol has had no bar for {stale} minutes of an open session. See the runbook: bars stopped coming.",
        )
        share = cloudwatch.MathExpression(
            expression="100 * rejected / received",
            label="rejected, percent",
            using_metrics={
                "rejected": _of(env, metrics.BARS_REJECTED, "Sum"),
                "received": _of(env, metrics.BARS_RECEIVED, "Sum"),
            },
            period=cdk.Duration.minutes(15),
        )
        self._alarm(
            "RejectedShare",
            share,
            self._config.rejected_percent,
            f"Over {self._config.rejected_percent:g} % of the received bars were refused. `barflow rejected list` "
            "shows them with their reasons; `barflow rejected replay` takes them back after a fix.",
        )
        self._alarm(
            "TicksRefused",
            _of(env, metrics.TICKS_REFUSED, "Sum"),
            0,
            "Twelve Data refused a whole tick: key, plan or the day's credits. The tick's log has its words.",
        )

    def of_function(self, function: lambda_.IFunction) -> None:
        """Ticks that fail, ticks that are not even tried."""
        self._alarm(
            "TickErrors",
            function.metric_errors(period=cdk.Duration.minutes(5)),
            0,
            "A tick failed. Lambda tries twice more; what fails then waits in the queue of failed ticks.",
        )
        tried = cloudwatch.MathExpression(
            expression=f"IF(HOUR(m) >= {FIRST_HOUR} AND HOUR(m) <= {LAST_HOUR} AND DAY(m) <= 5, FILL(m, 0), 1)",
            label="ticks tried",
            using_metrics={"m": function.metric_invocations(period=cdk.Duration.minutes(15))},
            period=cdk.Duration.minutes(15),
        )
        self._alarm(
            "NoTicks",
            tried,
            1,
            "The schedule has not invoked the ingest function for 15 minutes of a session. Is it enabled?",
            comparison=BELOW,
        )

    def of_failed_ticks(self, queue: sqs.IQueue) -> None:
        self._alarm(
            "FailedTicks",
            queue.metric_approximate_number_of_messages_visible(period=cdk.Duration.minutes(5)),
            0,
            "Ticks failed three times and wait in the queue. The runbook has the redrive.",
        )

    def of_bots(self, queues: Mapping[str, sqs.IQueue]) -> None:
        """``queues`` are the dead-letter queues of the bots, by bot."""
        if not queues:
            return
        waiting = {
            f"bot{number}": queue.metric_approximate_number_of_messages_visible(period=cdk.Duration.minutes(5))
            for number, queue in enumerate(queues.values())
        }
        together = cloudwatch.MathExpression(
            expression="+".join(waiting),
            label="alerts that failed",
            using_metrics=waiting,
            period=cdk.Duration.minutes(5),
        )
        self._alarm(
            "FailedAlerts",
            together,
            0,
            f"Alerts wait in a bot's dead-letter queue ({', '.join(queues)}): it failed at them five times, or the "
            "topic could not put them into its queue. See the runbook: price alerts.",
        )

    def of_database(self, instance: rds.IDatabaseInstance) -> None:
        config, period = self._config, cdk.Duration.minutes(5)
        self._alarm(
            "DatabaseStorage",
            instance.metric_free_storage_space(period=period, statistic="Minimum"),
            config.database_free_gb * 1024**3,
            f"The warehouse has less than {config.database_free_gb:g} GB free. It grows by itself up to its maximum.",
            comparison=BELOW,
        )
        self._alarm(
            "DatabaseCpu",
            instance.metric_cpu_utilization(period=period),
            config.database_cpu_percent,
            f"The warehouse has been over {config.database_cpu_percent:g} % busy for 15 minutes.",
            periods=3,
        )
        self._alarm(
            "DatabaseConnections",
            instance.metric_database_connections(period=period, statistic="Maximum"),
            config.database_connections,
            f"The warehouse has over {config.database_connections} connections.",
        )

    def of_host(self, instance: ec2.Instance) -> None:
        """The hardware's failure moves the host to other hardware; its own is for people."""
        for name, metric, words, extra in (
            ("HostHardware", "StatusCheckFailed_System", "EC2 moves it to other hardware by itself.", [_recover()]),
            ("HostDown", "StatusCheckFailed_Instance", "Restart it; if it stays down, deploy the host again.", []),
        ):
            alarm = self._alarm(
                name,
                cloudwatch.Metric(
                    namespace="AWS/EC2",
                    metric_name=metric,
                    dimensions_map={"InstanceId": instance.instance_id},
                    statistic="Maximum",
                    period=cdk.Duration.minutes(1),
                ),
                0,
                f"Airflow's host fails its status check. {words}",
                periods=3,
                missing=MISSING_IS_BAD,
            )
            for action in extra:
                alarm.add_alarm_action(action)

    def of_host_parts(self, env: str) -> None:
        """What the host's own check counts every five minutes; a check that is not made counts as the worst."""
        self._alarm(
            "HostParts",
            _of(env, metrics.HOST_PARTS_DOWN, "Minimum"),
            0,
            "For 15 minutes a part of Airflow or the analysts' page has not answered, or the host's check was not "
            "made. The host's log names it; see the runbook: the host, and Airflow's page.",
            periods=3,
            missing=MISSING_IS_BAD,
        )
        self._alarm(
            "UndeliveredAlerts",
            _of(env, metrics.UNDELIVERED_ALERT_AGE, "Maximum"),
            self._config.undelivered_minutes * 60,
            f"A price alert has waited for {self._config.undelivered_minutes} minutes for a channel to take it. "
            "`barflow alerts list --undelivered` on the host says which and why; the runbook has what to do.",
        )

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        words: str,
        *,
        comparison: cloudwatch.ComparisonOperator = ABOVE,
        periods: int = 1,
        missing: cloudwatch.TreatMissingData = MISSING_IS_FINE,
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self._stack,
            name,
            alarm_name=f"Barflow-{self._stack.environment_config.name}-{name}",
            alarm_description=words,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._tell)
        alarm.add_ok_action(self._tell)
        return alarm


def _of(env: str, name: str, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=metrics.NAMESPACE,
        metric_name=name,
        dimensions_map={metrics.ENVIRONMENT: env},
        statistic=statistic,
        period=cdk.Duration.minutes(5),
    )


def _recover() -> cloudwatch.IAlarmAction:
    return actions.Ec2Action(actions.Ec2InstanceAction.RECOVER)
