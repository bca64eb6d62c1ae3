"""The only way in which the AWS emulator changes moto: ``wrap`` a name that moto has, or ``add`` one that it lacks.

Both check moto when they are applied, which is when their module is imported. So the emulator does not start with a
release of moto that renamed, removed or gained one of these names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import moto

Function = Callable[..., Any]


class PatchError(RuntimeError):
    """moto does not have the name that a patch wraps, or has the name that a patch adds."""


def wrap(owner: Any, name: str) -> Callable[[Function], Function]:
    """Return a decorator that puts a function in the place of ``owner.name``; the owner is a class or a module.

    The function gets moto's original first, then the arguments of the call: the instance for a method or a property,
    the class for a class method. The original takes the same arguments. A property keeps its setter. A class that
    inherits the name gets its own. Raise PatchError if moto has no such name, or if it is neither a function nor a
    property.
    """
    found = inspect.getattr_static(owner, name, None)
    if found is None:
        raise PatchError(f"{_title(owner, name)} is missing. {_ADVICE}")

    def decorate(function: Function) -> Function:
        setattr(owner, name, _wrapped(found, function, _title(owner, name)))
        return function

    return decorate


def add(owner: Any, name: str) -> Callable[[Function], Function]:
    """Return a decorator that makes a function the method ``name`` of a class.

    Raise PatchError if moto has it already: then moto's own may do.
    """
    if inspect.getattr_static(owner, name, None) is not None:
        raise PatchError(f"{_title(owner, name)} exists. {_ADVICE}")

    def decorate(function: Function) -> Function:
        setattr(owner, name, function)
        return function

    return decorate


_ADVICE = "The AWS emulator cannot start. Run `make setup` for the pinned moto, or adapt the patch in emulators/aws."


def _title(owner: Any, name: str) -> str:
    return f"moto {moto.__version__}: {owner.__name__}.{name}"


def _wrapped(found: Any, function: Function, title: str) -> Any:
    if isinstance(found, property) and found.fget is not None:
        return property(_with_original(found.fget, function), found.fset, found.fdel)
    if isinstance(found, classmethod | staticmethod):
        return type(found)(_with_original(found.__func__, function))
    if inspect.isfunction(found):
        return _with_original(found, function)
    raise PatchError(f"{title} is neither a function nor a property. {_ADVICE}")


def _with_original(original: Function, function: Function) -> Function:
    @wraps(original)
    def patched(*arguments: Any, **named: Any) -> Any:
        return function(original, *arguments, **named)

    return patched
