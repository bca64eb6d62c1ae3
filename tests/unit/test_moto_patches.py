"""Patches of moto: what they put in place, and that a patch of a name that moto does not have fails."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import emulators.aws
from emulators.aws.patches import PatchError, add, wrap

FOLDER = Path(emulators.aws.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))


class Parent:
    """A class of moto's, for the tests."""

    def __init__(self) -> None:
        self._status = "NEW"

    def method(self, value: int, *, unit: str = "s") -> str:
        """Keep this docstring."""
        return f"{value} {unit}"

    @classmethod
    def named(cls, name: str) -> str:
        return f"{cls.__name__}.{name}"

    @staticmethod
    def plain(value: int) -> int:
        return value

    @property
    def status(self) -> str:
        return self._status

    @status.setter
    def status(self, value: str) -> None:
        self._status = value


@pytest.fixture
def owner() -> Any:
    return type("Owner", (Parent,), {"constant": 1})


def test_a_wrapped_method_gets_the_original_and_the_arguments_of_the_call(owner: Any) -> None:
    @wrap(owner, "method")
    def patch(original: Any, self: Any, value: int, **named: str) -> str:
        return f"<{original(self, value + 1, **named)}>"

    assert owner().method(1, unit="m") == "<2 m>"
    assert owner.method.__doc__ == "Keep this docstring."


def test_a_wrapped_class_method_gets_the_class_it_was_called_on(owner: Any) -> None:
    @wrap(owner, "named")
    def patch(original: Any, cls: Any, name: str) -> str:
        return f"<{original(cls, name)}>"

    assert owner.named("a") == "<Owner.a>"
    assert type("Child", (owner,), {}).named("a") == owner().named("a").replace("Owner", "Child")


def test_a_wrapped_static_method_stays_static(owner: Any) -> None:
    wrap(owner, "plain")(lambda original, value: -original(value))
    assert (owner.plain(1), owner().plain(1)) == (-1, -1)


def test_a_wrapped_property_keeps_its_setter(owner: Any) -> None:
    wrap(owner, "status")(lambda original, self: original(self).lower())
    found = owner()
    found.status = "DONE"
    assert found.status == "done"


def test_patches_of_one_name_wrap_each_other_and_leave_the_parent_alone(owner: Any) -> None:
    wrap(owner, "method")(lambda original, self, value: f"1({original(self, value)})")
    wrap(owner, "method")(lambda original, self, value: f"2({original(self, value)})")
    assert owner().method(5) == "2(1(5 s))"
    assert Parent().method(5) == "5 s"


def test_a_function_of_a_module_is_wrapped() -> None:
    module: Any = SimpleNamespace(__name__="module", double=lambda value: 2 * value)
    wrap(module, "double")(lambda original, value: original(value) + 1)
    assert module.double(2) == 5


def test_a_wrap_of_a_name_that_moto_does_not_have_fails_when_the_decorator_is_made(owner: Any) -> None:
    with pytest.raises(PatchError, match=r"^moto [\d.]+: Owner\.renamed is missing\. The AWS emulator cannot start\."):
        wrap(owner, "renamed")


def test_a_wrap_of_what_is_no_function_fails(owner: Any) -> None:
    with pytest.raises(PatchError, match=r"Owner\.constant is neither a function nor a property"):
        wrap(owner, "constant")(lambda original: original)


def test_an_added_method_is_one_that_moto_does_not_have(owner: Any) -> None:
    add(owner, "extra")(lambda self: "extra")
    assert owner().extra() == "extra"
    with pytest.raises(PatchError, match=r"Owner\.method exists"):
        add(owner, "method")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_changes_moto_in_another_way(path: Path) -> None:
    """A change is an assignment to an attribute of something imported from moto, or a setattr."""
    assert changes_of_moto(path.read_text()) == ([] if path.stem != "patches" else ["setattr"] * 2)


def test_a_change_in_another_way_is_found() -> None:
    source = (
        "from moto.a import A, B as C\n"
        "def run():\n    A.x, C.y = 1, 2\n"
        "C.z.deeper: int = 3\n"
        "setattr(A, 'x', 4)\n"
        "A().x = own.x = 5\n"
    )
    assert changes_of_moto(source) == ["A.x", "C.y", "C.z.deeper", "setattr"]


def changes_of_moto(source: str) -> list[str]:
    """Return the attributes of imported names of moto that a module assigns, and its calls of setattr."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moto")]
    names = {alias.asname or alias.name for node in imports for alias in node.names}
    found = []
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            text = ast.unparse(node)
            found += [text] if text.split(".")[0] in names else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            found += ["setattr"] if ast.unparse(node.args[0]) in names or "owner" in ast.unparse(node.args[0]) else []
    return sorted(found)
