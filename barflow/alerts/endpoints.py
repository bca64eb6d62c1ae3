"""Webhook endpoints that answered 410 Gone. No alert is sent to them until an operator enables them again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pymongo.database import Database

from barflow.staging.connection import Document, mongo_errors
from barflow.text import slack_escaped

# Another delivery may be posting the message. After this time, it has died or Slack did not accept it.
REPORT_AGAIN = timedelta(minutes=2)


class Endpoints:
    """The collection ``alert_endpoints``: one document per disabled endpoint, with the channel's name as its ``_id``.

    ``reported_at`` is the time (UTC) at which people were notified, or None before.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._endpoints = database["alert_endpoints"]

    def disabled(self) -> dict[str, Document]:
        """Return the disabled endpoints by the name of their channel."""
        with mongo_errors("read which webhooks are disabled"):
            return {item["_id"]: item for item in self._endpoints.find(sort=[("_id", 1)])}

    def disable(self, name: str, host: str, now: datetime) -> None:
        """Disable an endpoint. One that is disabled stays as it is."""
        first = {"host": host, "disabled_at": now, "reported_at": None, "report_at": now}
        with mongo_errors("record that a webhook is disabled"):
            self._endpoints.update_one({"_id": name}, {"$setOnInsert": first}, upsert=True)

    def enable(self, name: str) -> bool:
        """Enable an endpoint. Return whether it was disabled."""
        with mongo_errors("enable a webhook"):
            return self._endpoints.delete_one({"_id": name}).deleted_count == 1

    def report(self, now: datetime, post: Callable[[str], None]) -> None:
        """Post each disabled endpoint that was not reported, normally once although several deliveries run.

        An error of ``post`` is raised. The endpoint is then reported later.
        """
        due = {"reported_at": None, "report_at": {"$lte": now}}
        while True:
            with mongo_errors("record that a webhook is disabled"):
                found = self._endpoints.find_one_and_update(due, {"$set": {"report_at": now + REPORT_AGAIN}})
            if found is None:
                return
            post(gone_text(found["_id"], found["host"]))
            with mongo_errors("record that a webhook is disabled"):
                self._endpoints.update_one({"_id": found["_id"]}, {"$set": {"reported_at": now}})


def gone_text(name: str, host: str) -> str:
    """Return the Slack message about an endpoint that answered 410 Gone."""
    return (
        f":no_entry: *webhook disabled*: {slack_escaped(host)} answered 410 Gone. No alert is sent to it any more, and "
        "its waiting alerts are dropped. Remove its address from the settings. If it accepts alerts again, run "
        f"`barflow alerts webhooks --enable {slack_escaped(name)}`"
    )
