"""What a walk over a function and its arguments found, as a tree of specs.

Each spec says three things about one value: what a generated guard must check
(`_guard`), how a copy with traced arrays in it is made (`_rebuild`), and what goes
into the cache key (`Capture`, which makes them). Specs live for one slow call only.
"""

from __future__ import annotations

import decimal
import enum
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from fluxax._module import static_key

#: In the place of what is not there.
NOTHING: Any = object()


class _Raised(threading.local):
    reason: str | None = None
    learn: tuple[str, ...] = ()  # attributes that the walk would have had to look at


raised = _Raised()  # the first reason to step aside since a trace began in this thread


class Sidestep(BaseException):
    """The function cannot be compiled soundly; the text says why, for a reader of it.

    A BaseException, so that `except Exception` in user code does not swallow it. Code that
    swallows it all the same does not help itself: `raised` keeps the reason.
    """

    def __init__(self, reason: str, learn: tuple[str, ...] = ()):
        super().__init__(reason)
        if raised.reason is None:
            raised.reason, raised.learn = reason, learn
        self.learn = learn


class Is:
    """An object in a key, compared by identity. The key's owner keeps it alive."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Is) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return getattr(self.value, "__qualname__", None) or type(self.value).__name__


class Spec:
    """A value that was found, and what it is called for a reader: `cfg.lam`, `x`."""

    __slots__ = ("label", "value")

    def __init__(self, value: Any, label: str):
        self.value = value
        self.label = label


class Arr(Spec):
    """An array: an input of the program. `index` counts distinct arrays in walking order."""

    __slots__ = ("index", "inside", "numpy")

    def __init__(self, value: Any, label: str, index: int, numpy: bool, inside: bool):
        super().__init__(value, label)
        self.index, self.numpy = index, numpy
        self.inside = inside  # in a Module, where shapes hardly ever change


class Tied(Spec):
    """An array that was found before."""

    __slots__ = ("index",)

    def __init__(self, value: Any, label: str, index: int):
        super().__init__(value, label)
        self.index = index


class Num(Spec):
    """A number: a constant of the program, or its input number `index`; real if differentiated."""

    __slots__ = ("index", "real")

    def __init__(self, value: Any, label: str, index: int | None, real: bool = False):
        super().__init__(value, label)
        self.index, self.real = index, real


class Const(Spec):
    """A value that is part of the key: by identity, or by type and content."""

    __slots__ = ("identical",)

    def __init__(self, value: Any, label: str, identical: bool):
        super().__init__(value, label)
        self.identical = identical


class Opaque(Spec):
    """A value that cannot be compared: harmless while nobody touches it."""

    __slots__ = ("number",)

    def __init__(self, value: Any, label: str, number: int):
        super().__init__(value, label)
        self.number = number


class Again(Spec):
    """A container that was found before."""

    __slots__ = ("fixed", "number")

    def __init__(self, value: Any, label: str, number: int, fixed: bool):
        super().__init__(value, label)
        self.number, self.fixed = number, fixed


class Box(Spec):
    """Something with parts: a container, an object, a function, a cell.

    `checks` are expressions over `{v}` (the value) and `{k}` (the constants that stand
    beside them) which must hold; `parts` are triples of a reader, an expression that reads the
    part from `{v}` (and from `{k}`: then a pair of the expression and that constant), the part's
    key for the rebuilder, and its spec. A `fixed` box is no copy in a trace, but the thing itself.
    """

    __slots__ = ("checks", "fixed", "how", "number", "parts")

    def __init__(self, value: Any, label: str, number: int, how: How, fixed: bool):
        super().__init__(value, label)
        self.number, self.how, self.fixed = number, how, fixed
        self.checks: list[tuple[str, Any]] = []
        self.parts: list[tuple[Any, Any, Spec]] = []


class Part:
    """The key of a part that is no item: an attribute of a container, a class, a method."""

    __slots__ = ("name", "sort")

    def __init__(self, sort: str, name: Any):
        self.sort, self.name = sort, name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.sort, self.name) == (other.sort, other.name)

    def __hash__(self) -> int:
        return hash((self.sort, self.name))

    def __str__(self) -> str:
        return str(self.name)


class How:
    """How one sort of box is copied: an empty shell first (cycles may refer to it), then filled.

    Immutable sorts have no shell and are built from their parts at once. `now` tells what stands
    in a thing, `about` what else of it can be assigned, such as its class or a function's defaults.
    """

    __slots__ = ("about", "build", "fill", "name", "now", "shell")

    def __init__(
        self,
        name: str,
        *,
        build: Callable[[Any, dict[Any, Any]], Any] | None = None,
        shell: Callable[[Any], Any] | None = None,
        fill: Callable[[Any, Any, dict[Any, Any]], None] | None = None,
        now: Callable[[Any], dict[Any, Any]] | None = None,
        about: Callable[[Any], dict[Any, Any]] | None = None,
    ):
        self.name = name
        self.build, self.shell, self.fill, self.now, self.about = build, shell, fill, now, about

    def state(self, value: Any) -> dict[Any, Any]:
        """All of a thing that can be written: two of these are compared."""
        assert self.now is not None
        beside = self.about(value) if self.about is not None else {}
        return {**self.now(value), **{Part("about", k): v for k, v in beside.items()}}


def same_state(now: dict[Any, Any], then: dict[Any, Any]) -> bool:
    """Whether nothing was written between two states; `True` in the place of `1` is written."""
    if len(now) != len(then):
        return False
    pairs = zip(now.items(), then.items(), strict=True)
    return all(v is w and (k is m or _one_key(k, m)) for (k, v), (m, w) in pairs)


def _one_key(a: Any, b: Any) -> bool:
    if type(a) is not type(b) or a != b:
        return False
    return type(a) in (int, str, bytes, Part) or key_of(a) == key_of(b)


def key_of(value: Any) -> Any:
    """A dict's key or a set's member in a cache key: by content, or the thing itself."""
    return Is(value) if isinstance(value, (type, enum.Enum, *_FUNCTIONS)) else static_key(value)


def decimal_context() -> Any:
    """What arithmetic with decimals depends on in this thread."""
    now = decimal.getcontext()
    return now.prec, now.rounding, now.Emin, now.Emax, now.clamp, tuple(now.traps.items())


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


# --- small questions to specs --------------------------------------------------------------


def boxes_of(root: Spec) -> Iterator[Box]:
    """All boxes of a tree of specs."""
    stack = [root]
    while stack:
        spec = stack.pop()
        if isinstance(spec, Box):
            yield spec
            stack.extend(part for _, _, part in spec.parts)


def count_arrays(specs: list[Spec]) -> int:
    """How many arrays stand in the arguments; those of the function come after them."""
    found = -1
    stack = list(specs)
    while stack:
        spec = stack.pop()
        if isinstance(spec, Arr):
            found = max(found, spec.index)
        elif isinstance(spec, Box):
            stack.extend(part for _, _, part in spec.parts)
    return found + 1


def input_of(box: Box, name: str) -> int | None:
    """Which input is the array on an attribute, if one is."""
    for _, key, part in box.parts:
        if key == name and isinstance(part, (Arr, Tied)):
            return part.index
    return None


def argument_of(arguments: list[Spec], number: int) -> int | None:
    """Which top-level argument is the int that is input number `number`."""
    for i, spec in enumerate(arguments):
        if isinstance(spec, Num) and spec.index == number and type(spec.value) is int:
            return i
    return None
