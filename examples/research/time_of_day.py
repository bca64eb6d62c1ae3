"""matplotlib: draw the average volume and volatility by time of day.

    python examples/research/time_of_day.py [FIRST_DAY LAST_DAY [FILE.png]]

It reads the archive of BARFLOW_LAKE_URI, or else that of `make demo`, and writes time_of_day.png.
"""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MultipleLocator

import barflow

BARS_A_SESSION = 78
MINUTES_A_BAR = 5
VOLUME, VOLATILITY, TEXT, GRID = "#3b78a8", "#c0502d", "#30363d", "#e3e7eb"


def whole_sessions(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bars of the sessions that are complete. Half days are left out: they close earlier."""
    count = bars.groupby(["symbol", "session_date"])["ts"].transform("count")
    return bars[count == BARS_A_SESSION].copy()


def by_time_of_day(bars: pd.DataFrame) -> pd.DataFrame:
    """Return volume and volatility by minute of the day in New York, as averages of all stocks.

    ``volume`` is the average share of a bar in its session's volume, in percent. ``volatility`` is the standard
    deviation of a bar's return from its open to its close, in basis points.
    """
    local = bars["ts"].dt.tz_convert("America/New_York").dt
    bars["minute"] = 60 * local.hour + local.minute
    bars["share"] = 100 * bars["volume"] / bars.groupby(["symbol", "session_date"])["volume"].transform("sum")
    bars["move"] = 1e4 * np.log(bars["close"] / bars["open"])
    stocks = bars.groupby(["symbol", "minute"]).agg(volume=("share", "mean"), volatility=("move", "std"))
    return stocks.groupby("minute").mean()


def draw(found: pd.DataFrame, subtitle: str, file: str) -> None:
    """Write the picture of what ``by_time_of_day`` returns."""
    figure = Figure(figsize=(9, 6), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1))
    top, bottom = figure.subplots(2, 1, sharex=True)
    figure.suptitle(f"Volume and volatility by time of day\n{subtitle}", ha="left", x=0.015, fontsize=12, color=TEXT)
    middle = found.index + MINUTES_A_BAR / 2
    top.bar(middle, found["volume"], width=0.8 * MINUTES_A_BAR, color=VOLUME)
    top.set_title("volume of a 5-minute bar, % of the session", loc="left", fontsize=10, color=VOLUME)
    bottom.plot(middle, found["volatility"], color=VOLATILITY, linewidth=1.8)
    bottom.set_title("volatility of a 5-minute bar, basis points", loc="left", fontsize=10, color=VOLATILITY)
    bottom.set_xlabel("time in New York", color=TEXT)
    bottom.set_xlim(9.5 * 60, 16 * 60)
    bottom.xaxis.set_major_locator(MultipleLocator(30))
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{int(minute) // 60}:{int(minute) % 60:02}"))
    for axes in (top, bottom):
        axes.margins(y=0.08)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.tick_params(colors=TEXT, length=0, pad=6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(TEXT)
    figure.savefig(file, dpi=150)


def main(first: str, last: str, file: str = "time_of_day.png") -> None:
    """Read the 5-minute bars of all stocks, and draw the picture."""
    table = barflow.read(
        barflow.symbols(), first, last, columns=["symbol", "ts", "session_date", "open", "close", "volume"]
    )
    bars = whole_sessions(table.to_pandas())
    days = bars["session_date"]
    subtitle = (
        f"average of {bars['symbol'].nunique()} stocks in {days.nunique()} sessions, {days.min()} to {days.max()}"
    )
    draw(by_time_of_day(bars), subtitle, file)
    print(f"{file}: {subtitle}")


if __name__ == "__main__":
    today = datetime.now(UTC).date()
    main(*(sys.argv[1:4] or (f"{today - timedelta(days=60)}", f"{today}")))
