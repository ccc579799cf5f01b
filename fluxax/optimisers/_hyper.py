"""Hyperparameters inside a compiled step: numbers that are read when the program runs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import no_array, short
from fluxax._jax import is_tracer
from fluxax.optimisers._rule import name_of


class Hyper:
    """A hyperparameter inside a compiled step: arithmetic with numbers, an input for arrays.

    `1 - self.beta[0]` stays an expression, computed on the host in float64 whenever the rule
    changed; where it meets an array it becomes one element of the packed vector that is an input
    of the program. (In float32 on the device 1 - 0.999 would be off by 1e-5.) What needs a fixed
    value (a branch, a comparison, `math.sqrt`) or an array (`jnp.where`) raises a TypeError.
    """

    __slots__ = ("name", "pack")
    __array_ufunc__ = None  # so that NumPy leaves `array * hyper` to us

    def __init__(self, name: str, pack: Pack):
        self.name = name
        self.pack = pack

    def on(self, like: Any) -> Any:
        """The value as a scalar in the real dtype of an array (beside integers: of the vector)."""
        return _beside(self.pack.slot(self), like)

    def map(self, f: Callable[[Any], Any]) -> Hyper:
        """A function of the number, computed on the host."""
        return self.pack.hyper(f"{self.pack.known(f)}({self.name})")

    def _with(self, other: Any, op: str, *, swap: bool) -> Any:
        if isinstance(other, Timed):
            return other._with(self, op, swap=not swap)
        if isinstance(other, (Hyper, int, float)):
            theirs = other.name if isinstance(other, Hyper) else self.pack.known(other)
            a, b = (theirs, self.name) if swap else (self.name, theirs)
            return self.pack.hyper(f"{op}({a}, {b})")
        if not hasattr(other, "dtype"):
            return NotImplemented
        a, b = (other, self.on(other)) if swap else (self.on(other), other)
        return getattr(operator, op)(a, b)

    def __neg__(self) -> Hyper:
        return self.pack.hyper(f"neg({self.name})")

    def _unfixed(self, *_: Any) -> Any:
        raise TypeError("A hyperparameter inside a compiled step has no fixed value.")

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _unfixed
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _unfixed


def _beside(value: Any, like: Any) -> Any:
    return value.astype(real_dtype(like)) if jnp.issubdtype(like.dtype, np.inexact) else value


class Rows(Hyper):
    """A hyperparameter of several small leaves that lie in one array, a row each: a column."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[Hyper], pack: Pack):
        super().__init__("", pack)
        self.parts = parts

    def on(self, like: Any) -> Any:
        at = [self.pack.index(part) for part in self.parts]
        vector: Any = self.pack.vector
        together = at == list(range(at[0], at[0] + len(at)))
        column = lax.slice(vector, (at[0],), (at[-1] + 1,)) if together else vector[np.array(at)]
        return _beside(column[:, None], like)

    def map(self, f: Callable[[Any], Any]) -> Hyper:
        return Rows([part.map(f) for part in self.parts], self.pack)

    def __neg__(self) -> Hyper:
        return Rows([-part for part in self.parts], self.pack)

    def _with(self, other: Any, op: str, *, swap: bool) -> Any:
        if isinstance(other, (Hyper, int, float)) and not isinstance(other, Timed):
            theirs = other.parts if isinstance(other, Rows) else [other] * len(self.parts)
            new = [a._with(b, op, swap=swap) for a, b in zip(self.parts, theirs, strict=True)]
            return Rows(new, self.pack)
        return super()._with(other, op, swap=swap)


class Timed(Hyper):
    """A scheduled hyperparameter: its value now, from the step count on the device.

    Wide until it meets an array, as numbers are: `1 - eta` is not rounded to the array's dtype.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value.astype(pack_dtype())

    def on(self, like: Any) -> Any:
        return _beside(self.value, like)

    def map(self, f: Callable[[Any], Any]) -> Hyper:
        return Timed(f(self.value))

    def __neg__(self) -> Hyper:
        return Timed(-self.value)

    def _with(self, other: Any, op: str, *, swap: bool) -> Any:
        plain = isinstance(other, (Hyper, int, float))
        if not plain and not hasattr(other, "dtype"):
            return NotImplemented
        theirs = other.on(self.value) if isinstance(other, Hyper) else other
        mine = self.value if plain else self.on(other)
        result = getattr(operator, op)(*((theirs, mine) if swap else (mine, theirs)))
        return Timed(result) if plain else result


def value_at(schedule: Callable[[Any], Any], steps: Any) -> Any:
    """What a schedule gives after so many steps: one number; an error of ours if it cannot.

    A number that an objective is differentiated by is as good as a schedule that gives it always.
    """
    if is_tracer(schedule):
        return schedule
    name = name_of(schedule)
    who = "A schedule" if name == "schedule" else f"The schedule {name}"
    try:
        value = schedule(steps)
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{who} expects to compute with JAX, since steps are counted on the device, got a "
            "branch or a function that needs the number. Write jnp.where, jnp.cos and their like."
        ) from error
    if no_array(value) or np.shape(value) != ():
        raise TypeError(f"{who} expects to return one number, got {short(value)}.")
    return value


_OPERATORS = ("add", "sub", "mul", "truediv", "pow")


def _define(op: str) -> None:
    setattr(Hyper, f"__{op}__", lambda self, other: self._with(other, op, swap=False))
    setattr(Hyper, f"__r{op}__", lambda self, other: self._with(other, op, swap=True))


for _op in _OPERATORS:
    _define(_op)


class PackFull(Exception):
    """The vector of a `Pack` is too short for the program that is being traced."""


class Pack:
    """The hyperparameters of a program, packed into one vector.

    To compile: trace the step with a new `Pack(vector)`, where the tracer `vector` has
    `room(rules)` elements of `pack_dtype()`, and with `hyper_view(rule, pack, i)` for the i-th of
    the rules; after `PackFull`, again with twice the room. To run: give the program
    `pack.values(rules)`, made anew when `version.now` has changed.

    Every expression is a line of a small host function, so equal ones share an element.
    """

    def __init__(self, vector: Any):
        self.vector = vector  # dropped after the trace
        self.size, self.dtype = int(vector.shape[0]), np.dtype(vector.dtype)
        self._lines: dict[str, str] = {}  # expression → the variable that holds it
        self._slots: dict[str, int] = {}  # variable → element of the vector
        self._names: dict[Any, str] = {}  # constant or function → its global name
        self._globals: dict[str, Any] = {op: getattr(operator, op) for op in (*_OPERATORS, "neg")}
        self._compute: Callable[[Any], tuple[float, ...]] | None = None

    def hyper(self, expression: str) -> Hyper:
        """The number that an expression of the host function gives."""
        return Hyper(self._lines.setdefault(expression, f"v{len(self._lines)}"), self)

    def known(self, thing: Any) -> str:
        """The name of a constant or a function in the host function."""
        key = (type(thing), repr(thing)) if isinstance(thing, (int, float)) else thing
        name = self._names.setdefault(key, f"c{len(self._names)}")
        self._globals[name] = thing
        return name

    def index(self, hyper: Hyper) -> int:
        """The position of a number in the vector."""
        i = self._slots.setdefault(hyper.name, len(self._slots))
        if i >= self.size:
            raise PackFull(f"A program needs more than {self.size} hyperparameters.")
        return i

    def slot(self, hyper: Hyper) -> Any:
        """The element of the vector that holds a number, as a scalar array."""
        vector: Any = self.vector
        return lax.index_in_dim(vector, self.index(hyper), keepdims=False)

    def values(self, rules: Any) -> np.ndarray:
        """The vector for the rules as they are now: float64 until the last moment."""
        if self._compute is None:
            self._compute = self._compiled()
            self.vector = None
        numbers = self._compute(rules)
        vector = np.zeros(self.size, self.dtype)
        with np.errstate(over="ignore", under="ignore"):
            vector[: len(numbers)] = numbers
        return vector

    def _compiled(self) -> Callable[[Any], tuple[float, ...]]:
        """The host function, as Python: it runs at every change, some thousand lines long."""
        lines = [f"    {name} = {expression}" for expression, name in self._lines.items()]
        result = "".join(f"{name}, " for name in self._slots)
        source = "\n".join(["def compute(rules):", *lines, f"    return ({result})"])
        exec(compile(source, "<hyperparameters>", "exec"), self._globals)
        return self._globals["compute"]


def pack_dtype() -> np.dtype:
    """The dtype of a `Pack`'s vector: float32, in x64 mode float64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def real_dtype(like: Any) -> np.dtype:
    """The dtype of an array's real part."""
    return np.dtype(jnp.finfo(like.dtype).dtype)
