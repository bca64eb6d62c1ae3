"""How does a call to Twelve Data get its answer? It waits for credits, is made again when it failed, and is split.

One page of some symbols goes in; an answer or an error of each symbol comes out. What no symbol of the key could
escape (key, plan, credits of the day, a service that stays away) is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from barflow.errors import BadInputError, DayIsSpentError, UnavailableError, VendorRefusedError
from barflow.market.bars import INTERVAL
from barflow.twelvedata.credits import Credits
from barflow.twelvedata.http import Http, NoAnswer, RawResponse, Refusal, Reply

# The code of a symbol whose part of an answer was missing or no series of bars.
UNUSABLE = 502
# An end_date is inclusive or not, depending on whom one asks. This much later both mean the bar that opens then,
# and never the next.
INSTANT = timedelta(seconds=1)
# Refusals for the minute's credits in a row, with not one symbol answered between them, before it is no use.
MOST_REFUSALS = 5
KEPT = "What was stored before is unchanged."

OnRaw = Callable[[RawResponse], None] | None


@dataclass(frozen=True)
class Answer:
    """A symbol's bars as received, in the vendor's order; none when nothing traded. ``requested_at``: UTC, of the
    first request when there were several, so that an answer never passes for newer than it is."""

    symbol: str
    meta: Mapping[str, Any]
    values: list[dict[str, Any]]
    requested_at: datetime


@dataclass(frozen=True)
class SymbolError:
    """Why a symbol has no answer. ``code`` is the vendor's: 4xx it does not serve it, 5xx its answer was unusable."""

    symbol: str
    code: int
    message: str


Result = Answer | SymbolError


@dataclass(frozen=True)
class Page:
    """What is asked of each symbol: the newest ``rows`` bars that open from ``start`` to ``end`` (UTC, included)."""

    start: datetime
    end: datetime
    rows: int


@dataclass
class _Work:
    """One page of some symbols under way. ``todo``: the groups still to ask for, the next one last."""

    page: Page
    on_raw: OnRaw
    todo: list[list[str]]
    done: list[Result] = field(default_factory=list)
    suspects: set[str] = field(default_factory=set)  # had no usable part in an answer in which others had theirs


class Calls:
    """The calls of one API key, made one after the other."""

    def __init__(
        self,
        http: Http,
        credits: Credits,
        *,
        batch_size: int,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        on_wait: Callable[[float, str], None],
        attempts: int,
        longest_pause: float,
    ) -> None:
        self.batch_size = batch_size
        self._http = http
        self._credits = credits
        self._clock = clock
        self._sleep = sleep
        self._on_wait = on_wait
        self._attempts = attempts
        self._longest_pause = longest_pause
        self._refusals = 0

    def answers(self, symbols: list[str], page: Page, on_raw: OnRaw) -> Iterator[Result]:
        """One page of each symbol: call by call, until each has an answer or an error."""
        work = _Work(page, on_raw, [symbols])
        while work.todo:
            failure = self._persist(work)
            if failure and work.suspects.issuperset(work.todo[-1]):
                work.done += [SymbolError(symbol, UNUSABLE, str(failure)) for symbol in work.todo.pop()]
            elif failure:
                raise UnavailableError(
                    f"Twelve Data gave no answer for {_names(work.todo[-1])} in {self._attempts} attempts: {failure}. "
                    f"{KEPT} Check the network and BARFLOW_TWELVEDATA_URL, then run the same command again."
                )
            yield from work.done
            work.done.clear()

    def _persist(self, work: _Work) -> NoAnswer | None:
        """Makes one call, up to ``attempts`` times with pauses between them. Returns the failure of the last."""

        def tell(state: RetryCallState) -> None:
            pause = state.next_action.sleep if state.next_action else 0.0
            reason = state.outcome.exception() if state.outcome else None
            self._on_wait(pause, f"{reason}; then Twelve Data is asked again for {_names(work.todo[-1])}")

        attempts = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(initial=1, max=self._longest_pause, jitter=1),
            retry=retry_if_exception_type(NoAnswer),
            sleep=self._sleep,
            before_sleep=tell,
            reraise=True,
        )
        try:
            attempts(self._call, work)
        except NoAnswer as failure:
            return failure
        return None

    def _call(self, work: _Work) -> None:
        """One call for as much of the next group as the credits allow; what is to be asked again stays in ``todo``."""
        room = self._wait_for_credits(work.todo[-1])
        group, rest = work.todo[-1][:room], work.todo[-1][room:]
        self._credits.spend(len(group), self._clock())
        params: dict[str, str | int] = {
            "symbol": ",".join(group),
            "interval": INTERVAL,
            "timezone": "UTC",
            "outputsize": work.page.rows,
            "start_date": as_text(work.page.start),
            "end_date": as_text(work.page.end + INSTANT),
        }
        reply = self._http.get("/time_series", params, tuple(group), work.on_raw)
        if reply.credits_left is not None:
            self._credits.told(reply.credits_left, self._clock())
        work.todo[-1:] = [rest] if rest else []
        if reply.refusal is None:
            self._take_apart(group, reply, work)
        else:
            self._split_or_end(group, reply.refusal, reply.requested_at, work)
        if work.done:
            self._refusals = 0

    def _wait_for_credits(self, symbols: list[str]) -> int:
        """How many symbols may be asked for now, after a wait for the next minute where there is none."""
        while not (room := self._credits.left(now := self._clock())):
            back = self._credits.resume_at(now)
            if self._credits.day_is_spent(now):
                raise DayIsSpentError(
                    f"The API credits of the day were used up before {_names(symbols)}; they come back at "
                    f"{back:%Y-%m-%d %H:%M} UTC. {KEPT} Run the same command after that, or choose a larger plan."
                )
            pause = (back - now).total_seconds()
            self._on_wait(pause, f"the API credits of this minute are used up; {_names(symbols)} next")
            self._sleep(pause)
        return room

    def _split_or_end(self, group: list[str], refusal: Refusal, asked: datetime, work: _Work) -> None:
        """A call refused as a whole: what may be answered in smaller groups, or later, goes back into ``todo``."""
        half = len(group) // 2
        halves = [group[half:], group[:half]] if half else [group]
        if refusal.is_no_data:
            work.done += [Answer(symbol, {}, [], asked) for symbol in group]
        elif refusal.code == 429:
            self._out_of_credits(group, refusal, work)
            # What others leave of a minute may be too little for the whole group.
            work.todo += halves if self._refusals > 1 else [group]
        elif refusal.is_about_symbols and half:
            if refusal.code == 414:
                self.batch_size = min(self.batch_size, half)
            work.todo += halves
        elif refusal.is_about_symbols:
            work.done.append(SymbolError(group[0], refusal.code, refusal.message))
        else:
            raise self._ending(refusal, group)

    def _take_apart(self, group: list[str], reply: Reply, work: _Work) -> None:
        """An answer, by symbol. What has no usable part, or no credits, goes back; raises NoAnswer for the former."""
        out_of_credits: dict[str, Refusal] = {}
        unusable: dict[str, Refusal] = {}
        for symbol in group:
            values, meta, refusal = self._part(reply.body if len(group) == 1 else reply.body.get(symbol))
            if refusal is None or refusal.is_no_data:
                work.done.append(Answer(symbol, meta, values, reply.requested_at))
            elif refusal.code == 401:
                raise self._ending(refusal, group)
            elif refusal.code == 429:
                out_of_credits[symbol] = refusal
            elif refusal.code < 500:
                work.done.append(SymbolError(symbol, refusal.code, refusal.message))
            else:
                unusable[symbol] = refusal
        if out_of_credits:
            work.todo.append(list(out_of_credits))
            self._out_of_credits(work.todo[-1], next(iter(out_of_credits.values())), work)
        if unusable:
            work.todo.append(list(unusable))
            if len(unusable) < len(group):
                work.suspects |= unusable.keys()
            raise NoAnswer(next(iter(unusable.values())).message)

    def _part(self, part: Any) -> tuple[list[dict[str, Any]], Mapping[str, Any], Refusal | None]:
        """Values and meta of one symbol's part of an answer, or why there are none."""
        if not isinstance(part, dict):
            return [], {}, Refusal(UNUSABLE, "the answer lacks this symbol")
        if refusal := self._http.refusal(part):
            return [], {}, refusal
        values, meta = part.get("values"), part.get("meta")
        if not isinstance(values, list) or not isinstance(meta, dict):
            return [], {}, Refusal(UNUSABLE, "the answer has no list of values")
        return values, meta, None

    def _out_of_credits(self, symbols: list[str], refusal: Refusal, work: _Work) -> None:
        """Notes until when there are none. Raises VendorRefusedError when waiting has not helped before."""
        now = self._clock()
        if refusal.is_for_day:
            self._credits.refused_for_day(now)
            return
        self._credits.refused_for_minute(now, refusal.limit)
        self._refusals = 0 if work.done else self._refusals + 1
        if self._refusals > MOST_REFUSALS:
            raise VendorRefusedError(
                f"Twelve Data refused {_names(symbols)} {self._refusals} times running: {refusal.message.rstrip('.')}. "
                f"{KEPT} Another program uses the same key, or BARFLOW_CREDITS_PER_MINUTE is above the plan's limit."
            )

    def _ending(self, refusal: Refusal, group: list[str]) -> BadInputError | VendorRefusedError:
        """The error of a refusal that no other symbol of this key would escape."""
        said = f"Twelve Data refused {_names(group)} (error {refusal.code}): {refusal.message.rstrip('.')}. {KEPT}"
        if refusal.code == 401 and self._http.has_key:
            return VendorRefusedError(
                f"{said} TWELVEDATA_API_KEY is not a valid key: set the right one, then run again."
            )
        if refusal.code == 401:
            return VendorRefusedError(
                f"{said} TWELVEDATA_API_KEY is not set, and the demo key serves few symbols: set it."
            )
        if refusal.code == 403:
            return VendorRefusedError(f"{said} The key's plan does not include it: choose a plan that does.")
        return BadInputError(f"{said} The request is at fault, and would be refused again. Correct what it names.")


def as_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _names(symbols: Sequence[str]) -> str:
    """``AAPL, MSFT and 6 more``"""
    more = len(symbols) - 5
    return ", ".join(symbols[:5]) + (f" and {more} more" if more > 0 else "")
