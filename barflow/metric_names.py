"""Names of the pipeline's CloudWatch metrics, for the code that writes them and for dashboards and alarms."""

from __future__ import annotations

NAMESPACE = "Barflow"
ENVIRONMENT, SYMBOL = "Environment", "Symbol"  # the dimensions
# One value per environment and tick.
BARS_RECEIVED = "BarsReceived"
BARS_INGESTED = "BarsIngested"  # stored for the first time, or stored again because the source changed them
BARS_REJECTED = "BarsRejected"
SYMBOLS_REFUSED = "SymbolsRefused"  # refused by the vendor, while it answered others
TICKS_REFUSED = "TicksRefused"  # refused by the vendor entirely: wrong key, wrong plan, no credits left today
ALERTS_FIRED = "AlertsFired"
UNDELIVERED_ALERT_AGE = "UndeliveredAlertAge"  # seconds since the oldest alert; 0: none; the host too
STALEST = "Stalest"  # seconds, the greatest freshness of any symbol
# One value per environment and process run.
ROWS_LOADED = "RowsLoaded"
RUN_COST = "RunCost"  # dollars at list prices
# One value per environment and evaluation of the data quality rules.
RULES_FAILED = "RulesFailed"
# One value per environment, from the host, every five minutes.
HOST_PARTS_DOWN = "HostPartsDown"  # how many of Airflow's components, the page and the alerts' store do not answer
# One value per environment, symbol and tick.
FRESHNESS = "Freshness"  # seconds from the close of the newest stored bar to now
