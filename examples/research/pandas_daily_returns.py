"""pandas: print the annual volatility of each stock, and the correlation of daily returns.

    python examples/research/pandas_daily_returns.py [FIRST_DAY LAST_DAY]

It reads the archive of BARFLOW_LAKE_URI, or else that of `make demo`. Prices are adjusted for splits.
"""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np

import barflow

SESSIONS_A_YEAR = 252


def main(first: str, last: str) -> None:
    """Print the annual volatility of each stock in percent, and the correlations."""
    bars = barflow.read(barflow.symbols(), first, last, interval="1d", columns=["symbol", "session_date", "close"])
    closes = bars.to_pandas().pivot(index="session_date", columns="symbol", values="close")
    returns = np.log(closes).diff().dropna(how="all")
    volatility = returns.std() * np.sqrt(SESSIONS_A_YEAR) * 100
    print(f"{len(closes)} sessions, {closes.index[0]} to {closes.index[-1]}")
    print("\nvolatility a year, %\n" + volatility.round(1).to_string())
    print("\ncorrelation of daily returns\n" + returns.corr().round(2).to_string())


if __name__ == "__main__":
    today = datetime.now(UTC).date()
    main(*(sys.argv[1:3] or (f"{today - timedelta(days=60)}", f"{today}")))
