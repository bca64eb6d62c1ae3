"""Conditions in CEL, the Common Expression Language: the check of a text, and the program that runs at each bar.

A condition is checked once, when the rules are read. The check replaces each value by a variable. The program is
therefore plain CEL over numbers.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Literal, NamedTuple

from barflow.alerts.condition_values import (
    BAR_BEFORE,
    COLUMNS,
    CROSSINGS,
    EARLIER,
    FUNCTIONS,
    NAMES,
    OF_FORM,
    OF_OTHERS,
    OF_PAST,
    Operation,
    Past,
    Tree,
    Value,
    Window,
    column_past,
)
from barflow.symbol import is_symbol

MOST_CHARACTERS, MOST_DEPTH = 500, 30


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition that was checked: its values, what they need of the past, and the program that runs at each bar.

    ``others`` holds by other symbol that it names the position in the text, counted from 1. ``tree`` is what the
    program computes, for readers that look at many bars at once.
    """

    values: tuple[Value, ...]
    past: Past
    others: Mapping[str, int]
    tree: Tree
    _names: tuple[str, ...]
    _program: Any
    _context: Any
    _lock: Lock

    def holds(self, values: Sequence[float | bool]) -> bool:
        """Return whether the condition holds for these values, which are in the order of ``self.values``.

        A number that is not defined, such as 0.0 / 0.0, compares with nothing: then the condition does not hold.
        """
        with self._lock:
            for name, value in zip(self._names, values):  # noqa: B905 - as many by construction, and quicker
                self._context.add_variable(name, value)
            try:
                return self._program.execute(self._context) is True
            except TypeError:
                return False


@cache
def condition(text: str) -> Condition:
    """Return the checked condition of a text.

    Raises ValueError that names the position in the text, counted from 1, and what is allowed there.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"has {len(text)} characters: allowed are {MOST_CHARACTERS}")
    parser = _Parser(text)
    whole = parser.whole()
    if not parser.values:
        raise ValueError(f"names no value of a bar: allowed are {', '.join(NAMES)} and functions")
    values = tuple(parser.values)
    names = tuple(parser.values.values())
    context = _cel().Context(variables=dict.fromkeys(names, 1.0))
    past = Past(*(max(needed) for needed in zip(*parser.past, strict=True)))
    program = _cel().compile(whole.cel)
    return Condition(values, past, parser.others, whole.tree, names, program, context, Lock())


@cache
def _cel() -> ModuleType:
    """Return CEL's compiled module. The package around it imports its command line, which takes a second."""
    found = importlib.util.find_spec("cel")
    if found is None or not found.submodule_search_locations:
        raise ValueError("needs the package common-expression-language, which is not installed")
    [binary] = [
        path
        for pattern in ("cel.*.so", "cel.*.pyd")
        for path in Path(found.submodule_search_locations[0]).glob(pattern)
    ]
    spec = importlib.util.spec_from_file_location("cel.cel", binary)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Kind = Literal["bool", "number", "whole"]


class _Part(NamedTuple):
    """A part of a condition: its kind, its text as CEL, its place and its tree."""

    kind: Kind
    cel: str
    place: int
    tree: Tree

    @property
    def value(self) -> Value | float | None:
        """Return the value or number, if the part is just that."""
        return None if isinstance(self.tree, Operation) else self.tree


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


TOKEN = re.compile(
    r"(?P<number>\d+\.\d+(?:[eE][+-]?\d+)?)|(?P<whole>\d+)(?![\w.])|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<quoted>\"[^\"\n]*\"|'[^'\n]*')|(?P<sign>&&|\|\||[<>=!]=|[-+*/<>!?:().,])"
)
# Weakest first.
LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">="), ("+", "-"), ("*", "/"))
SIGNS = "&& || ! < <= > >= == != + - * / ? : ( ) ,"
SYNTAX_ERROR = re.compile(r"<input>:(\d+):(\d+): Syntax error: (.*)")


class _Parser:
    """Checks names, kinds and windows, which CEL itself knows only while it runs."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self.values: dict[Value, str] = {}
        self.past: list[Past] = [Past()]
        self.others: dict[str, int] = {}
        self._tokens = self._split()

    def whole(self) -> _Part:
        """Return the condition. Raises ValueError with the position of the mistake."""
        found = self._expression()
        if self._token.kind != "end":
            raise _wrong(self._token.place, f"{self._token.text!r} is not expected here")
        self._check_syntax()
        if found.kind != "bool":
            raise _wrong(found.place, "the condition is a number; compare it, such as close > 100.0")
        return found

    def _check_syntax(self) -> None:
        """Let CEL read the text as it is written, so that Barflow allows nothing that is not CEL."""
        try:
            _cel().compile(self._text)
        except ValueError as error:
            found = SYNTAX_ERROR.search(str(error))
            if found is None:
                raise ValueError("is not an expression in CEL") from None
            lines = self._text.splitlines(keepends=True)[: int(found[1]) - 1]
            raise _wrong(sum(map(len, lines)) + int(found[2]) - 1, found[3]) from None

    def _split(self) -> list[_Token]:
        tokens, at, end = [], 0, len(self._text.rstrip())
        while at < end:
            at += len(self._text[at:]) - len(self._text[at:].lstrip())
            match = TOKEN.match(self._text, at)
            if match is None:
                raise _wrong(
                    at, f"{self._text[at]!r} is not allowed; allowed are names, numbers such as 2.0 or 2, and {SIGNS}"
                )
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "the end", end)]

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _accept(self, *texts: str) -> _Token | None:
        token = self._token
        if token.kind != "sign" or token.text not in texts:
            return None
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise _wrong(self._token.place, f"{text!r} is expected, not {self._token.text}")

    def _expression(self) -> _Part:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _wrong(self._token.place, f"nested deeper than {MOST_DEPTH} levels")
        found = self._operation(0)
        if asked := self._accept("?"):
            _need(found, "bool", asked)
            yes = self._expression()
            self._expect(":")
            no = self._expression()
            if (yes.kind == "bool") != (no.kind == "bool"):
                raise _wrong(asked.place, "? : needs two conditions or two numbers")
            kind: Kind = "bool" if yes.kind == "bool" else "number"
            tree = Operation("?", (found.tree, yes.tree, no.tree))
            found = _Part(kind, f"({found.cel} ? {yes.cel} : {no.cel})", found.place, tree)
        self._depth -= 1
        return found

    def _operation(self, level: int) -> _Part:
        if level == len(LEVELS):
            return self._unary()
        left = self._operation(level + 1)
        while sign := self._accept(*LEVELS[level]):
            left = _combined(left, sign, self._operation(level + 1))
        return left

    def _unary(self) -> _Part:
        sign = self._accept("!", "-")
        if sign is None:
            return self._primary()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _wrong(sign.place, f"nested deeper than {MOST_DEPTH} levels")
        found = self._unary()
        self._depth -= 1
        if sign.text == "!":
            _need(found, "bool", sign)
            return _Part("bool", f"(!{found.cel})", sign.place, Operation("!", (found.tree,)))
        if found.kind == "bool":
            raise _wrong(sign.place, "- needs a number")
        tree = -found.tree if isinstance(found.tree, float) else Operation("-", (found.tree,))
        return _Part(found.kind, f"(-{found.cel})", sign.place, tree)

    def _primary(self) -> _Part:
        if self._accept("("):
            found = self._expression()
            self._expect(")")
            return found
        token = self._token
        self._at += 1
        if token.kind == "name":
            return self._named(token)
        if token.kind in ("number", "whole"):
            number = float(token.text)
            kind: Kind = "number" if token.kind == "number" else "whole"
            return _Part(kind, repr(number), token.place, number)
        raise _wrong(token.place, f"a value, a function, a number or ( is expected, not {token.text}")

    def _named(self, token: _Token) -> _Part:
        name, called = token.text, self._accept("(") is not None
        if called and name in CROSSINGS:
            return self._crossing(token)
        if called and name == "of":
            return self._of(token)
        if called and (name == "earlier" or name in FUNCTIONS):
            return self._window(token, EARLIER if name == "earlier" else FUNCTIONS[name])
        if called:
            functions = ", ".join((*FUNCTIONS, "earlier", "of", *CROSSINGS))
            problem = "is a value, not a function" if name in NAMES else "is not a known function"
            raise _wrong(token.place, f"{name} {problem}; functions are {functions}")
        if name in NAMES:
            return self._value(token, Value(name), NAMES[name])
        if name in CROSSINGS:
            raise _wrong(token.place, f"{name} is a function: write {name}(close, vwap)")
        if name == "of":
            raise _wrong(token.place, f"of is a function: write {OF_FORM}")
        if name in FUNCTIONS or name == "earlier":
            raise _wrong(token.place, f"{name} is a function: write {name}(n){'.close' * (name == 'earlier')}")
        raise _wrong(token.place, f"{name} is not a known value; values are {', '.join(NAMES)}")

    def _arguments(self, token: _Token, count: int, form: str) -> list[_Part]:
        found = [] if self._accept(")") else [self._expression()]
        while found and self._accept(","):
            found.append(self._expression())
        if found:
            self._expect(")")
        if len(found) != count:
            given = f"{len(found)} argument{'s' * (len(found) != 1)}"
            raise _wrong(token.place, f"{token.text} has {given}: write {form}")
        return found

    def _window(self, token: _Token, window: Window) -> _Part:
        name = token.text
        column_of = name == "earlier"
        form = f"{name}(n){'.close' * column_of}, with n {window.allowed}"
        [argument] = self._arguments(token, 1, form)
        n = argument.value
        if argument.kind != "whole" or not isinstance(n, float):
            raise _wrong(argument.place, f"n of {name} must be {window.allowed}, written as a number")
        if not window.least <= n <= window.most or n % window.step:
            raise _wrong(argument.place, f"n of {name} is {n:.0f}: it must be {window.allowed}")
        if not column_of:
            return self._value(token, Value(name, int(n)), window.past(int(n)))
        dot, column = self._accept("."), self._token
        if dot is None or column.text not in COLUMNS:
            raise _wrong(column.place, f"earlier(n) needs one of .{', .'.join(COLUMNS)}")
        self._at += 1
        return self._value(token, Value(name, int(n), column.text), column_past(column.text, int(n) + 1))

    def _of(self, token: _Token) -> _Part:
        quoted = self._token
        symbol = quoted.text[1:-1].upper()
        if quoted.kind != "quoted" or not is_symbol(symbol):
            raise _wrong(quoted.place, f"of needs a symbol in quotes: write {OF_FORM}")
        self._at += 1
        self._expect(")")
        dot, column = self._accept("."), self._token
        if dot is None or column.text not in OF_OTHERS:
            raise _wrong(column.place, f"of(symbol) needs one of .{', .'.join(OF_OTHERS)}")
        self._at += 1
        self.others.setdefault(symbol, token.place + 1)
        return self._value(token, Value("of", column=column.text, symbol=symbol), OF_PAST)

    def _crossing(self, token: _Token) -> _Part:
        known = dict(self.values)
        pair = self._arguments(token, 2, f"{token.text}(a, b)")
        compared: list[Value | float] = []
        for part in pair:
            if part.value is None or part.kind == "bool":
                raise _wrong(part.place, f"{token.text} compares values and numbers, such as close, sma(20) or 100.0")
            compared.append(part.value)
            if isinstance(part.value, Value):
                self.past.append(BAR_BEFORE.get(part.value.name, Past()))
        # A crossing compares these itself. The program needs only its result.
        self.values = known
        return self._value(token, Value(token.text, compared=tuple(compared)), Past())

    def _value(self, token: _Token, value: Value, past: Past) -> _Part:
        self.past.append(past)
        name = self.values.setdefault(value, f"v{len(self.values)}")
        return _Part("bool" if value.name in CROSSINGS else "number", name, token.place, value)


def _combined(left: _Part, sign: _Token, right: _Part) -> _Part:
    """Return two parts with a sign between them. Raises ValueError if the sign does not take their kinds."""
    cel = f"({left.cel} {sign.text} {right.cel})"
    tree = Operation(sign.text, (left.tree, right.tree))
    kinds = {left.kind, right.kind}
    if sign.text in ("&&", "||"):
        _need(left, "bool", sign)
        _need(right, "bool", sign)
        return _Part("bool", cel, left.place, tree)
    if sign.text in ("+", "-", "*", "/"):
        if "bool" in kinds:
            raise _wrong(sign.place, f"{sign.text} needs two numbers")
        if "whole" in kinds:
            whole = left if left.kind == "whole" else right
            raise _wrong(whole.place, f"{sign.text} needs numbers with a decimal point, such as 2.0")
        return _Part("number", cel, left.place, tree)
    if kinds == {"bool"} and sign.text in ("==", "!="):
        return _Part("bool", cel, left.place, tree)
    if "bool" in kinds:
        raise _wrong(sign.place, f"{sign.text} compares numbers; join conditions with && or ||")
    return _Part("bool", cel, left.place, tree)


def _need(part: _Part, kind: Kind, sign: _Token) -> None:
    if part.kind != kind:
        raise _wrong(part.place, f"{sign.text} needs a condition here, such as close > 100.0")


def _wrong(place: int, problem: str) -> ValueError:
    return ValueError(f"position {place + 1}: {problem}")
