"""What the pipeline's CloudWatch metrics are called: by those who write them, and by dashboards and alarms."""

from __future__ import annotations

NAMESPACE = "Barflow"
ENVIRONMENT, SYMBOL = "Environment", "Symbol"  # the dimensions
# By environment, a tick each.
BARS_RECEIVED = "BarsReceived"
BARS_INGESTED = "BarsIngested"  # stored for the first time, or stored again because the source changed them
BARS_REJECTED = "BarsRejected"
SYMBOLS_REFUSED = "SymbolsRefused"  # by the vendor, while others were answered
TICKS_REFUSED = "TicksRefused"  # by the vendor as a whole: wrong key, plan, the day's credits
ALERTS_FIRED = "AlertsFired"
UNDELIVERED_ALERT_AGE = "UndeliveredAlertAge"  # seconds since the oldest was noticed; 0: none waits; from the host, too
STALEST = "Stalest"  # seconds, the greatest freshness of any symbol
# By environment, a process run each.
ROWS_LOADED = "RowsLoaded"
RUN_COST = "RunCost"  # dollars, by the price table
# By environment, from the host, every five minutes.
HOST_PARTS_DOWN = "HostPartsDown"  # of Airflow and the page, those that do not answer
# By environment and symbol.
FRESHNESS = "Freshness"  # seconds from the close of the newest stored bar to now
