"""The calls to Twelve Data: each waits for credits, is retried when it fails, and is split when it is refused.

The input is one page of some symbols, the output an answer or an error for each symbol. An error that every symbol
would get (key, plan, credits of the day, an outage) is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, ClassVar, Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from barflow.errors import BadInputError, DayIsSpentError, NotInPlanError, UnavailableError, VendorRefusedError
from barflow.market.bars import INTERVAL
from barflow.twelvedata.credits import Credits
from barflow.twelvedata.http import (
    TOO_LARGE,
    Http,
    NoAnswerError,
    RawResponse,
    Refusal,
    Reply,
    is_about_symbol,
    wrong_address,
)

# The code for a symbol whose part of an answer is missing or holds no series of bars.
UNUSABLE = 502
# Sources conflict on whether end_date is inclusive. One second later, both readings include the bar that opens at the
# end, and neither includes the next one.
INSTANT = timedelta(seconds=1)
# How many refusals for the minute's credits in a row, without an answer for any symbol, are accepted.
MAX_REFUSALS = 5
STORE_UNCHANGED = "What was stored before is unchanged."
# The parameters of every request about 5-minute bars.
BARS: dict[str, str | int] = {"interval": INTERVAL, "timezone": "UTC"}

OnRaw = Callable[[RawResponse], None] | None


@dataclass(frozen=True)
class Answer:
    """A symbol's bars as received, in Twelve Data's order. ``values`` is empty when nothing traded.

    ``requested_at`` (UTC) is the moment of the first request when there were several pages: an answer must not seem
    newer than it is.
    """

    symbol: str
    meta: Mapping[str, Any]
    values: list[dict[str, Any]]
    requested_at: datetime


@dataclass(frozen=True)
class SymbolError:
    """The reason why a symbol has no answer. ``code``: 4xx Twelve Data does not serve it, 5xx no usable answer."""

    symbol: str
    code: int
    message: str

    @property
    def is_final(self) -> bool:
        """Return whether Twelve Data does not serve the symbol at all, so that other ranges fail too."""
        return self.code < 500 and is_about_symbol(self.message)


Result = Answer | SymbolError


class Question(Protocol):
    """A request for some symbols, and how its answer is read. It costs ``credits`` a symbol."""

    @property
    def path(self) -> str:
        """Return the path of the endpoint."""

    @property
    def optional(self) -> bool:
        """Return whether a refusal of the whole call counts as an empty answer."""

    @property
    def credits(self) -> int:
        """Return the API credits for each symbol."""

    @property
    def params(self) -> dict[str, str | int]:
        """Return the parameters of the request, without the symbols."""

    def values(self, part: Mapping[str, Any]) -> list[Any] | None:
        """Return the values in one symbol's part of an answer, or None if it has no list of them."""


@dataclass(frozen=True)
class Page:
    """The request for each symbol: the newest ``rows`` bars that open from ``start`` to ``end`` (UTC, inclusive)."""

    start: datetime
    end: datetime
    rows: int
    path: ClassVar[str] = "/time_series"
    optional: ClassVar[bool] = False
    credits: ClassVar[int] = 1

    @property
    def params(self) -> dict[str, str | int]:
        """Return the parameters of the request."""
        return {
            **BARS,
            "outputsize": self.rows,
            "start_date": as_text(self.start),
            "end_date": as_text(self.end + INSTANT),
        }

    def values(self, part: Mapping[str, Any]) -> list[Any] | None:
        """Return the bars in one symbol's part of an answer, or None if it has no list of them."""
        values = part.get("values")
        return values if isinstance(values, list) and isinstance(part.get("meta"), dict) else None


@dataclass(frozen=True)
class FirstBar:
    """The request for the day of the first bar that Twelve Data has of a symbol. A backfill works without it."""

    path: ClassVar[str] = "/earliest_timestamp"
    optional: ClassVar[bool] = True
    credits: ClassVar[int] = 1
    params: ClassVar[dict[str, str | int]] = BARS

    def values(self, part: Mapping[str, Any]) -> list[Any] | None:
        """Return the day as the only value, or None. It is the same day in UTC and in New York."""
        try:
            return [date.fromisoformat(str(part.get("datetime"))[:10])]
        except ValueError:
            return None


@dataclass
class _Request:
    """The state of one request of some symbols.

    ``todo`` are the groups still to request, the next one last. ``suspects`` had no usable part in an answer that was
    usable for other symbols.
    """

    page: Question
    on_raw: OnRaw
    todo: list[list[str]]
    done: list[Result] = field(default_factory=list)
    suspects: set[str] = field(default_factory=set)


class Calls:
    """The calls with one API key, one after the other."""

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

    def answers(self, symbols: list[str], page: Question, on_raw: OnRaw) -> Iterator[Result]:
        """Yield the answer or the error of each symbol, after as many calls as that takes."""
        request = _Request(page, on_raw, [symbols])
        while request.todo:
            failure = self._call_with_retries(request)
            if failure and request.suspects.issuperset(request.todo[-1]):
                request.done += [SymbolError(symbol, UNUSABLE, str(failure)) for symbol in request.todo.pop()]
            elif failure:
                raise UnavailableError(
                    f"Twelve Data gave no answer for {_names(request.todo[-1])} in {self._attempts} attempts: "
                    f"{failure}. {STORE_UNCHANGED} Check the network and BARFLOW_TWELVEDATA_URL, then run the same "
                    "command again."
                )
            yield from request.done
            request.done.clear()

    def ready_at(self, cost: int) -> datetime:
        """Return when a request may start (UTC): now if ``cost`` credits are left, else when credits are renewed."""
        now = self._clock()
        most = min(cost, self._credits.per_minute)
        return now if self._credits.left(now) >= most else self._credits.resume_at(now, most)

    def _call_with_retries(self, request: _Request) -> NoAnswerError | None:
        """Make one call, up to ``attempts`` times with pauses between them. Return the last failure, or None."""

        def report_pause(state: RetryCallState) -> None:
            pause = state.next_action.sleep if state.next_action else 0.0
            reason = state.outcome.exception() if state.outcome else None
            self._on_wait(pause, f"{reason}; retry for {_names(request.todo[-1])} after that")

        attempts = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(initial=1, max=self._longest_pause, jitter=1),
            retry=retry_if_exception_type(NoAnswerError),
            sleep=self._sleep,
            before_sleep=report_pause,
            reraise=True,
        )
        try:
            attempts(self._call, request)
        except NoAnswerError as failure:
            return failure
        return None

    def _call(self, request: _Request) -> None:
        """Make one call for as much of the next group as the credits allow. Leave in ``todo`` what has no result."""
        affordable = self._wait_for_credits(request.todo[-1], request.page.credits)
        group, rest = request.todo[-1][:affordable], request.todo[-1][affordable:]
        self._credits.spend(len(group) * request.page.credits, self._clock())
        params: dict[str, str | int] = {"symbol": ",".join(group), **request.page.params}
        reply = self._http.get(request.page.path, params, tuple(group), request.on_raw)
        if reply.credits_left is not None:
            self._credits.limit_to(reply.credits_left, self._clock())
        request.todo[-1:] = [rest] if rest else []
        if reply.refusal is None:
            self._read_answer(group, reply, request)
        else:
            self._handle_refusal(group, reply.refusal, reply.requested_at, request)
        if request.done:
            self._refusals = 0

    def _wait_for_credits(self, symbols: list[str], cost: int) -> int:
        """Return how many symbols may be requested now, at ``cost`` credits each. Wait for the next minute if none may.

        Raises DayIsSpentError when the credits of the day are used up, and NotInPlanError when no wait would help.
        """
        while not (affordable := self._credits.left(now := self._clock()) // cost):
            if not self._credits.allow(cost):
                raise NotInPlanError(
                    f"The request for {_names(symbols)} costs {cost} API credits, and the plan has "
                    f"{self._credits.per_minute} a minute. {STORE_UNCHANGED} Choose a larger plan, or correct "
                    "BARFLOW_CREDITS_PER_MINUTE and BARFLOW_CREDITS_PER_DAY."
                )
            resume_at = self._credits.resume_at(now, cost)
            if self._credits.day_is_spent(now, cost):
                raise DayIsSpentError(
                    f"The API credits of the day were used up before {_names(symbols)}. They are renewed at "
                    f"{resume_at:%Y-%m-%d %H:%M} UTC. {STORE_UNCHANGED} Run the same command after that, or choose a "
                    "larger plan."
                )
            pause = (resume_at - now).total_seconds()
            self._on_wait(pause, f"the API credits of this minute are used up; {_names(symbols)} next")
            self._sleep(pause)
        return affordable

    def _handle_refusal(self, group: list[str], refusal: Refusal, requested_at: datetime, request: _Request) -> None:
        """Handle a call that was refused entirely. Return to ``todo`` what may succeed in smaller groups or later.

        Raises BadInputError or VendorRefusedError if no other call could succeed.
        """
        half = len(group) // 2
        halves = [group[half:], group[:half]] if half else [group]
        if refusal.is_no_data:
            request.done += [Answer(symbol, {}, [], requested_at) for symbol in group]
        elif refusal.code == 429:
            self._record_credit_refusal(group, refusal, request)
            # Other users of the key may leave too few credits for the whole group.
            request.todo += halves if self._refusals > 1 else [group]
        elif refusal.is_about_symbols and half:
            if refusal.code == 414:
                self.batch_size = min(self.batch_size, half)
            request.todo += halves
        elif refusal.is_about_symbols:
            code = UNUSABLE if refusal.code == TOO_LARGE else refusal.code
            request.done.append(SymbolError(group[0], code, refusal.message))
        elif request.page.optional and refusal.code != 401:
            request.done += [Answer(symbol, {}, [], requested_at) for symbol in group]
        else:
            raise self._fatal_error(refusal, group)

    def _read_answer(self, group: list[str], reply: Reply, request: _Request) -> None:
        """Read an answer symbol by symbol. Return to ``todo`` the symbols without a usable part or without credits.

        Raises NoAnswerError if a part is not usable.
        """
        out_of_credits: dict[str, Refusal] = {}
        unusable: dict[str, Refusal] = {}
        for symbol in group:
            part = reply.body if len(group) == 1 else reply.body.get(symbol)
            values, meta, refusal = self._part(part, request.page)
            if refusal is None or refusal.is_no_data:
                request.done.append(Answer(symbol, meta, values, reply.requested_at))
            elif refusal.code == 401:
                raise self._fatal_error(refusal, group)
            elif refusal.code == 429:
                out_of_credits[symbol] = refusal
            elif refusal.code < 500:
                request.done.append(SymbolError(symbol, refusal.code, refusal.message))
            else:
                unusable[symbol] = refusal
        if out_of_credits:
            request.todo.append(list(out_of_credits))
            self._record_credit_refusal(request.todo[-1], next(iter(out_of_credits.values())), request)
        if unusable:
            request.todo.append(list(unusable))
            if len(unusable) < len(group):
                request.suspects |= unusable.keys()
            raise NoAnswerError(next(iter(unusable.values())).message)

    def _part(self, part: Any, page: Question) -> tuple[list[Any], Mapping[str, Any], Refusal | None]:
        """Return the values and meta of one symbol's part of an answer, or the refusal in it."""
        if not isinstance(part, dict):
            return [], {}, Refusal(UNUSABLE, "the answer lacks this symbol")
        if refusal := self._http.refusal(part):
            return [], {}, refusal
        values = page.values(part)
        if values is None:
            return [], {}, Refusal(UNUSABLE, "the answer has no list of values")
        return values, part.get("meta") or {}, None

    def _record_credit_refusal(self, symbols: list[str], refusal: Refusal, request: _Request) -> None:
        """Record that the minute or the day has no credits left.

        Raises VendorRefusedError after more than ``MAX_REFUSALS`` refusals in a row: waiting does not help then.
        """
        now = self._clock()
        if refusal.is_for_day:
            self._credits.refused_for_day(now)
            return
        self._credits.refused_for_minute(now, refusal.limit)
        self._refusals = 0 if request.done else self._refusals + 1
        if self._refusals > MAX_REFUSALS:
            raise VendorRefusedError(
                f"Twelve Data refused {_names(symbols)} {self._refusals} times in a row: "
                f"{refusal.message.rstrip('.')}. {STORE_UNCHANGED} Stop other programs that use the same key, or set "
                "BARFLOW_CREDITS_PER_MINUTE to the plan's limit, then run again."
            )

    def _fatal_error(self, refusal: Refusal, group: list[str]) -> BadInputError | VendorRefusedError:
        """Return the error of a refusal that every symbol of this key would get."""
        refused = (
            f"Twelve Data refused {_names(group)} (error {refusal.code}): {refusal.message.rstrip('.')}. "
            f"{STORE_UNCHANGED}"
        )
        if refusal.code == 401 and self._http.has_key:
            return VendorRefusedError(
                f"{refused} TWELVEDATA_API_KEY is not a valid key: set the right one, then run again."
            )
        if refusal.code == 401:
            return VendorRefusedError(
                f"{refused} TWELVEDATA_API_KEY is not set, and the demo key serves few symbols: set it, then run again."
            )
        if refusal.code == 403:
            return NotInPlanError(
                f"{refused} The key's plan does not include it: choose a plan that does, then run again."
            )
        if refusal.code == 404:
            return wrong_address(f"error 404: {refusal.message.rstrip('.')}")
        return BadInputError(f"{refused} The request is invalid, so a retry would fail too. Correct what it names.")


def as_text(moment: datetime) -> str:
    """Return a moment as the API reads and writes it: ``2025-07-02 13:30:00``."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _names(symbols: Sequence[str]) -> str:
    """Return symbols as text, such as ``AAPL, MSFT, NVDA, GOOGL, TSLA and 6 more``."""
    more = len(symbols) - 5
    return ", ".join(symbols[:5]) + (f" and {more} more" if more > 0 else "")
