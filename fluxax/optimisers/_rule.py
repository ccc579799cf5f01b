"""The interface of an optimisation rule, and what its hyperparameters are in a program.

A rule is a dataclass with two methods. `apply` is ordinary arithmetic on arrays and
on the rule's own fields, and runs in two ways: uncompiled, where the fields are
Python numbers, and compiled, where each is a `Hyper`: a number that is read when
the program runs, so that changing it compiles nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import article, short

_ticks = itertools.count(1)


class _Version:
    """Counts changes of any rule or leaf, so that a step can see at once that there was none."""

    now: int = 0


version = _Version()


def changed() -> None:
    """Note that a rule or a leaf's settings changed somewhere."""
    version.now = next(_ticks)


class Rule:
    """How one parameter's gradient becomes its step. Subclass as a dataclass:

        @dataclass
        class Descent(Rule):
            eta: float = 0.1

            def apply(self, state, x, dx):
                return state, self.eta * dx

    `init(x)` gives the state for a parameter: a pytree of arrays, or `None`. `apply(state, x, dx)`
    gives the new state and the step, which is subtracted: `x - step`. Neither may change its
    arguments. Number fields may be changed at any time (`adjust`, or plain assignment), also in a
    compiled loop; `limits` maps a field's name to the closed range its numbers must lie in.
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {"eta": (0.0, math.inf)}

    def init(self, x: Any) -> Any:
        """The state for a parameter before its first step."""
        del x
        return None

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        """The new state and the step for a parameter `x` with gradient `dx`."""
        raise TypeError(f"{type(self).__name__} expects a method apply(state, x, dx).")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in getattr(type(self), "__dataclass_fields__", ()):
            value = self._checked(name, value)
            changed()
        object.__setattr__(self, name, value)

    def _checked(self, name: str, value: Any) -> Any:
        """A field's value as it is kept; an error if it lies outside its limits."""
        default = type(self).__dataclass_fields__[name].default  # type: ignore[attr-defined]
        if isinstance(default, tuple) and not callable(value):
            return self._checked_tuple(name, default, value)
        low_high = self.limits.get(name)
        if low_high and not callable(value) and not isinstance(value, Hyper):
            number = _number(self, name, value)
            low, high = low_high
            if not low <= number <= high:
                wanted = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:.6g}"
                raise ValueError(f"{type(self).__name__} expects `{name}` {wanted}, got {value!r}.")
            return number if isinstance(default, float) else value
        return value

    def _checked_tuple(self, name: str, default: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)) or len(value) != len(default):
            raise ValueError(
                f"{type(self).__name__} expects `{name}` to be {len(default)} numbers, got {value!r}."
            )
        low, high = self.limits.get(name, (-math.inf, math.inf))
        for v in value:
            if isinstance(v, Hyper) or callable(v):
                continue
            if not low <= _number(self, name, v) <= high:
                raise ValueError(
                    f"{type(self).__name__} expects each of `{name}` between {low:g} and {high:.6g}, got {value!r}."
                )
        return tuple(value)


#: The largest float below 1: decays lie in [0, 1).
BELOW_ONE = math.nextafter(1.0, 0.0)


def _number(rule: Rule, name: str, value: Any) -> float:
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(
            f"{type(rule).__name__} expects `{name}` to be a number or a schedule, got {short(value)}."
        )
    return float(value)


def check_rule(who: str, rule: Any) -> Rule:
    """The rule, or an error that says what came instead."""
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise TypeError(f"{who} expects a rule, got the class {rule.__name__}. Write {rule.__name__}().")
    if not isinstance(rule, Rule):
        raise TypeError(f"{who} expects a rule such as fx.Adam(1e-3), got {short(rule)}.")
    return rule


# --- hyperparameters inside a program -----------------------------------------------------


class Hyper:
    """A hyperparameter inside a compiled step: arithmetic with numbers, an input for arrays.

    `1 - self.beta[0]` stays an expression, computed on the host in float64 whenever the rule
    changed; where it meets an array it becomes one element of the packed vector that is an input
    of the program. (In float32 on the device 1 - 0.999 would be off by 1e-5.) `evaluate` takes the
    rules of the program's leaves and gives the number.
    """

    __slots__ = ("evaluate", "pack")

    def __init__(self, evaluate: Callable[[Any], float], pack: Pack):
        self.evaluate = evaluate
        self.pack = pack

    def on(self, like: Any) -> Any:
        """The value as a scalar array in the (real) dtype of an array."""
        return self.pack.slot(self).astype(jnp.finfo(like.dtype).dtype if _inexact(like) else None)

    def _with(self, other: Any, op: Callable[[Any, Any], Any], *, swap: bool) -> Any:
        if isinstance(other, Hyper):
            a, b = (other, self) if swap else (self, other)
            return Hyper(lambda rules: op(a.evaluate(rules), b.evaluate(rules)), self.pack)
        if isinstance(other, (int, float)):
            if swap:
                return Hyper(lambda rules: op(other, self.evaluate(rules)), self.pack)
            return Hyper(lambda rules: op(self.evaluate(rules), other), self.pack)
        if not hasattr(other, "dtype"):
            return NotImplemented
        mine = self.on(other)
        return op(other, mine) if swap else op(mine, other)

    def __neg__(self) -> Hyper:
        return Hyper(lambda rules: -self.evaluate(rules), self.pack)

    def map(self, f: Callable[[float], float]) -> Hyper:
        """A function of the number, computed on the host."""
        return Hyper(lambda rules: f(self.evaluate(rules)), self.pack)

    def _concrete(self, *_: Any) -> Any:
        raise TypeError("A hyperparameter inside a compiled step has no fixed value.")

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _concrete
    __hash__ = None  # type: ignore[assignment]  # no fixed value, so nothing to hash


def _inexact(array: Any) -> bool:
    return jax.dtypes.issubdtype(array.dtype, np.inexact)


def _operators(name: str) -> None:
    op = getattr(operator, name if name not in ("lt", "le", "gt", "ge", "eq", "ne") else f"__{name}__")
    setattr(Hyper, f"__{name}__", lambda self, other: self._with(other, op, swap=False))
    setattr(Hyper, f"__r{name}__", lambda self, other: self._with(other, op, swap=True))


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _operators(_name)


class Pack:
    """The hyperparameters of a program, packed into one vector.

    While a step is traced, `slot` hands out elements of the vector; `values` computes
    them on the host for the rules as they are now.
    """

    def __init__(self, vector: Any):
        self.vector = vector
        self.slots: list[Hyper] = []

    def slot(self, hyper: Hyper) -> Any:
        self.slots.append(hyper)
        return self.vector[len(self.slots) - 1]


def scalar(value: Any, like: Any) -> Any:
    """A hyperparameter as JAX functions take it: `jnp.clip(dx, -scalar(delta, dx), ...)`."""
    return value.on(like) if isinstance(value, Hyper) else value


def one_minus_power(beta: Any, t: Any, like: Any) -> Any:
    """1 - βᵗ for a step count t, without the cancellation that float32 suffers near β = 1.

    Computed as -expm1(t log β), with log β from the host in float64.
    """
    log_beta = beta.map(_log) if isinstance(beta, Hyper) else _log(beta)
    dtype = jnp.finfo(like.dtype).dtype
    return -jnp.expm1(t.astype(jnp.promote_types(dtype, jnp.float32)) * log_beta).astype(dtype)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def abs2(x: Any) -> Any:
    """|x|², real also for complex x."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros beside an array, on its device; compiles nothing."""
    return full_like(x, 0, dtype)


def full_like(x: Any, value: float, dtype: Any = None) -> Any:
    """An array of one value beside an array, on its device; compiles nothing."""
    host = np.full(np.shape(x), value, dtype or x.dtype)
    return jax.device_put(host, x.sharding if isinstance(x, jax.Array) else None)


def count() -> Any:
    """A step count of zero."""
    return jax.device_put(np.zeros((), np.int32))


def fields_of(rule: Any) -> list[str]:
    """The names of a rule's hyperparameters."""
    return [f.name for f in dataclasses.fields(rule)]


def show(rule: Any) -> str:
    """A rule as its constructor, every field named."""
    inside = ", ".join(f"{n}={getattr(rule, n)!r}" for n in fields_of(rule))
    return f"{type(rule).__name__}({inside})"


def unknown_field(who: str, rule: Any, name: str) -> str:
    """The sentence for a field that a rule does not have."""
    known = ", ".join(sorted(fields_of(rule)))
    return f"{who} expects a field of {article(type(rule).__name__)[2:].strip()} ({known}), got `{name}`."
