"""A paper-trading bot: it turns alerts into positions on paper, each alert once, and prints its profit.

    python examples/paper_bot.py queue QUEUE_URL             # an SQS queue of BotQueues
    python examples/paper_bot.py page http://127.0.0.1:8050  # the page of a demo on this machine
    WEBHOOK_SECRET=whsec_… python examples/paper_bot.py webhook 8080  # signed webhooks, as in webhook_receiver.py

It buys for 10,000 dollars when a rule fires upwards, and sells all when one fires downwards. Replace ``side`` with your
own idea. A rule with a condition has no direction: name it with ``--buy`` or ``--sell``. The bot knows no splits or
fees, and it is no advice.

Delivery is at least once and in any order. One transaction stores an alert's id and the position that it leads to, so
the bot can be killed at any moment. What it must not trade, it records.
"""

import argparse
import json
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import requests

Alert = dict[str, Any]
Handle = Callable[[Alert], object]
DOLLARS = 10_000.0
BAR = timedelta(minutes=5)
TABLES = """
create table if not exists handled (id text primary key, bar_start text, symbol text, outcome text);
create table if not exists positions (
    symbol text primary key, shares integer default 0, cost real default 0, realised real default 0,
    price real, bar_start text);
"""


class PaperBot:
    """Keeps paper positions in a file. ``buy`` and ``sell`` are ids of rules that have no direction.

    An alert is too late to trade when its bar ended more than ``late`` ago, and wrong before its bar has begun. In a
    ``simulated`` market, the time is the end of the newest bar that an alert has had.
    """

    def __init__(
        self,
        file: str,
        *,
        buy: tuple[str, ...] = (),
        sell: tuple[str, ...] = (),
        late: timedelta = timedelta(minutes=15),
        simulated: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.buy, self.sell, self.late, self.simulated, self.clock = buy, sell, late, simulated, clock
        self.database = sqlite3.connect(file, check_same_thread=False)
        self.database.row_factory = sqlite3.Row
        self.database.executescript(TABLES)
        self.one_at_a_time = Lock()

    def side(self, alert: Alert) -> int:
        """Return 1 to buy, -1 to sell, 0 for neither."""
        if alert["kind"] in ("silence", "split"):
            return 0
        if alert["rule"] in self.buy or alert["rule"] in self.sell:
            return 1 if alert["rule"] in self.buy else -1
        return {"up": 1, "down": -1}.get(alert["direction"], 0)

    def handle(self, alert: Alert) -> str:
        """Handle an alert, and return what was done. A known id does nothing, nor does a test message."""
        if alert["kind"] == "test":
            return "a test"
        with self.one_at_a_time, self.database:  # one transaction: it stores all of this, or nothing
            # A bar of the future must not become the newest one.
            future = not self.simulated and moment(alert) > self.now()
            row = [alert["id"], None if future else moment(alert).isoformat(), alert["symbol"]]
            if not self.database.execute("insert or ignore into handled values (?, ?, ?, '')", row).rowcount:
                return "known"
            outcome = "its bar has not begun" if future else self.reason_not_to_trade(alert)
            if alert["price"] and not future:
                self.mark(alert)
            outcome = outcome or self.trade(alert)
            self.database.execute("update handled set outcome = ? where id = ?", [outcome, alert["id"]])
        print(alert["bar_start"], alert["symbol"], f"{outcome}: {alert['text']}", flush=True)
        print(self.profit(), flush=True)
        return outcome

    def reason_not_to_trade(self, alert: Alert) -> str | None:
        """Return why an alert is only recorded, or None."""
        if alert["symbol"] == "*":
            return "the feed is silent"
        if not self.side(alert):
            return "no side"
        if moment(alert) + BAR + self.late < self.now():
            return "too late"
        newest = "select max(bar_start) from handled where symbol = ?"
        [newest] = self.database.execute(newest, [alert["symbol"]]).fetchone()
        return "older than another alert" if newest and datetime.fromisoformat(newest) > moment(alert) else None

    def now(self) -> datetime:
        """Return the market's time."""
        if not self.simulated:
            return self.clock()
        [newest] = self.database.execute("select max(bar_start) from handled").fetchone()
        return datetime.fromisoformat(newest) + BAR

    def mark(self, alert: Alert) -> None:
        """Store the alert's price, unless a newer one is known."""
        values = [alert["symbol"], alert["price"], moment(alert).isoformat()]
        self.database.execute(
            "insert into positions (symbol, price, bar_start) values (?, ?, ?) on conflict (symbol) do update "
            "set price = excluded.price, bar_start = excluded.bar_start where excluded.bar_start > bar_start",
            values,
        )

    def trade(self, alert: Alert) -> str:
        """Buy or sell at the alert's price, in dollars, and return what was done."""
        price, symbol = alert["price"], alert["symbol"]
        held = self.database.execute("select * from positions where symbol = ?", [symbol]).fetchone()
        shares, cost, realised, outcome = held["shares"], held["cost"], held["realised"], "nothing to do"
        if self.side(alert) > 0 and not shares and price <= DOLLARS:
            shares = int(DOLLARS / price)
            cost, outcome = shares * price, f"bought {shares} at {price:.2f}"
        elif self.side(alert) < 0 and shares:
            realised, outcome = realised + shares * price - cost, f"sold {shares} at {price:.2f}"
            shares, cost = 0, 0.0
        changed = "update positions set shares = ?, cost = ?, realised = ? where symbol = ?"
        self.database.execute(changed, [shares, cost, realised, symbol])
        return outcome

    def profit(self) -> str:
        """Return the profit in dollars: realised, and open at the last price of each symbol that an alert had."""
        [realised, opened, count] = self.database.execute(
            "select sum(realised), sum(shares * price - cost), sum(shares > 0) from positions"
        ).fetchone()
        return f"profit {realised or 0:+,.2f} realised, {opened or 0:+,.2f} open in {count or 0} positions"


def moment(alert: Alert) -> datetime:
    """Return the open of an alert's bar (UTC)."""
    return datetime.fromisoformat(alert["bar_start"]).astimezone(UTC)


def from_queue(url: str, handle: Handle, *, wait: int = 20) -> None:
    """Handle the alerts of an SQS queue until it has been empty for ``wait`` seconds.

    An alert is deleted after it is handled. One that fails is delivered again, and in the end goes to the dead-letter
    queue.
    """
    import boto3

    sqs = boto3.client("sqs")
    asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": wait}
    while messages := sqs.receive_message(**asked).get("Messages"):
        for message in messages:
            handle(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def from_page(url: str, handle: Handle) -> None:
    """Handle the newest alerts that the page has, oldest first."""
    answer = requests.get(f"{url.rstrip('/')}/api/alerts", {"limit": 500}, timeout=10)
    answer.raise_for_status()
    for alert in sorted((item["message"] for item in answer.json()["alerts"]), key=moment):
        handle(alert)


def main() -> None:
    """Follow a source of alerts until Ctrl-C."""
    options = argparse.ArgumentParser(description="Trade alerts on paper.")
    options.add_argument("source", choices=("queue", "page", "webhook"))
    options.add_argument("address", help="the queue's URL, the page's URL, or the port for webhooks")
    options.add_argument("--file", default="paper.sqlite", help="where positions are kept")
    for side in ("buy", "sell"):
        options.add_argument(f"--{side}", action="append", default=[], metavar="RULE", help=f"a rule to {side}")
    options.add_argument("--simulated", action="store_true", help="the market's clock is not that of this machine")
    given = options.parse_args()
    bot = PaperBot(given.file, buy=tuple(given.buy), sell=tuple(given.sell), simulated=given.simulated)
    if given.source == "webhook":
        from webhook_receiver import Receiver, server

        server(Receiver(os.environ["WEBHOOK_SECRET"], given.file, bot.handle), int(given.address)).serve_forever()
    while True:
        try:
            if given.source == "queue":
                from_queue(given.address, bot.handle)
                continue
            from_page(given.address, bot.handle)
        except Exception as error:  # no answer, or a message that is no alert
            print(f"{given.address}: {type(error).__name__}. Trying again", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
