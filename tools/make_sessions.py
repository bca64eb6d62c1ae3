"""Write barflow/market/sessions_xnys.csv: one line per NYSE session, with its open and close in UTC.

Run it once a year, or when the exchange announces a closure:  .venv/bin/python tools/make_sessions.py
"""

from __future__ import annotations

from pathlib import Path

import exchange_calendars

FIRST, LAST = "2008-01-01", "2031-12-31"
TARGET = Path(__file__).parents[1] / "barflow" / "market" / "sessions_xnys.csv"


def main() -> None:
    """Write the table from exchange_calendars and print its size."""
    calendar = exchange_calendars.get_calendar("XNYS", start=FIRST, end=LAST)
    schedule = calendar.schedule
    lines = [
        f"{day:%Y-%m-%d},{opens:%H:%M},{closes:%H:%M}\n"
        for day, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
    ]
    TARGET.write_text("session_date,open_utc,close_utc\n" + "".join(lines))
    print(f"{TARGET}: {len(lines)} sessions, {FIRST} to {LAST}")


if __name__ == "__main__":
    main()
