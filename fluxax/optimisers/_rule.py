"""The interface of an optimisation rule, and its fields.

A rule is a dataclass with two methods. `apply` is ordinary arithmetic on arrays and
on the rule's own fields, and runs in two ways: uncompiled, where the fields are
Python numbers, and compiled, where each is a `Hyper`: a number that is read when
the program runs, so that changing it compiles nothing.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import sys
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax._module import Module
from fluxax.optimisers._widen import wide_apply, wide_init

_ticks = itertools.count(1)


class _Version:
    """Counts changes of any rule or leaf, so that a step can see at once that there was none.

    `now` moves with every change, `structure` only with one that asks for another program.
    """

    now: int = 0
    structure: int = 0


version = _Version()


def changed(*, structure: bool = True) -> None:
    """Note that a rule or a leaf's settings changed somewhere."""
    version.now = next(_ticks)
    if structure:
        version.structure = version.now


#: Ranges for `limits`: a decay lies in [0, 1), so its top is the largest float below 1; a bound
#: may be infinite, which is none, but no rate.
NOT_NEGATIVE = (0.0, sys.float_info.max)
BOUND = (0.0, math.inf)
DECAY = (0.0, math.nextafter(1.0, 0.0))


class Rule:
    """How one parameter's gradient becomes its step. Subclass as a dataclass:

        @dataclass
        class Descent(Rule):
            eta: float = 0.1

            def apply(self, state, x, dx):
                return state, self.eta * dx

    `init(x)` gives the state for a parameter: a pytree of arrays, or `None`. `apply(state, x, dx)`
    gives the new state and the step, which is subtracted: `x - step`. Neither may change its
    arguments or the rule: what changes from step to step belongs in the state. A field is changed
    by assigning it (`rule.beta = (0.8, 0.99)`; `adjust` does that), also in a compiled loop.

    `limits` maps a field's name to the closed range that its numbers must lie in, at construction
    and at every assignment. `static` names the number fields that `apply` branches on, such as
    the `p` of a norm: they are constants of a compiled program, and changing one compiles
    another. Booleans, strings and `None` are static anyway. `elementwise = True` promises that each
    number's step depends on that number alone, its gradient and its state, which has its shape:
    then small arrays share one, which is faster.

    Parameters and gradients in float16 or bfloat16 come to both methods as float32, also where
    you call them yourself; the new parameter is rounded once.
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {"eta": NOT_NEGATIVE}
    static: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wide in (("init", wide_init), ("apply", wide_apply)):
            if name in vars(cls) and not hasattr(cls, "parameter"):  # that one rounds itself
                setattr(cls, name, wide(vars(cls)[name]))

    def init(self, x: Any) -> Any:
        """The state for a parameter before its first step."""
        del x
        return None

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        """The new state and the step for a parameter `x` with gradient `dx`."""
        raise TypeError(f"{type(self).__name__} expects a method apply(state, x, dx).")

    def passed_on(self, name: str, value: Any) -> Any:
        """What `adjust` gives the rules inside this one when a field is to have a value."""
        del name
        return value

    def checked(self, name: str, value: Any) -> Any:
        """A field's value as it is kept; an error if it is not one that the field can have."""
        fields: dict[str, Any] = getattr(type(self), "__dataclass_fields__", {})
        default = fields[name].default if name in fields else None
        if isinstance(default, bool):
            return _flag(self, name, value)
        if is_free(value):
            return _takes_a_step(self, name, value)
        if isinstance(default, tuple) and name in self.limits:
            return _numbers(self, name, value, len(default))
        if isinstance(default, tuple):
            return tuple(value) if isinstance(value, list) else value
        if name in self.limits:
            number = _number(self, name, value)
            return value if isinstance(default, int) else number
        plain_int = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if isinstance(default, float) and plain_int else value

    def __setattr__(self, name: str, value: Any) -> None:
        if "_sealed" in self.__dict__:
            raise TypeError(
                f"{type(self).__name__} expects `apply` to leave the rule alone, got a write to "
                f"`{name}`. Keep what changes from step to step in the state."
            )
        if not _has_field(type(self), name):
            known = ", ".join(sorted(fields_of(self))) or "it has none"
            who = type(self).__name__
            raise AttributeError(f"{who} expects one of its fields ({known}), got `{name}`.")
        new, old = self.checked(name, value), self.__dict__.get(name)
        object.__setattr__(self, name, new)
        changed(structure=name in self.static or not _numbers_both(old, new))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name, None) for name in fields_of(self))

    def __repr__(self) -> str:
        return show(self)


def _has_field(cls: Any, name: str) -> bool:
    """Whether a rule of a class has a field; of a class that is no dataclass: any attribute is."""
    fields = vars(cls).get("__dataclass_fields__")
    return fields is None or name in fields or name.startswith("_") or hasattr(cls, name)


def _numbers_both(old: Any, new: Any) -> bool:
    """Whether a change is from number to number, or from numbers to as many numbers."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return all(map(_numbers_both, old, new))
    return is_number(old) and is_number(new)


def _flag(rule: Rule, name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"{type(rule).__name__} expects `{name}` to be True or False, got {short(value)}."
        )
    return bool(value)


def _number(rule: Rule, name: str, value: Any, within: str = "") -> float:
    """A number within the field's limits; `within` says what it is a member of."""
    who, low_high = type(rule).__name__, rule.limits[name]
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain and not _real_scalar(value):
        wanted = within or "a number or a schedule"
        raise TypeError(f"{who} expects `{name}` to be {wanted}, got {short(value)}.")
    number = float(value)
    if number == math.inf > low_high[1]:
        raise ValueError(f"{who} expects `{name}` to be finite, got {number}.")
    if not low_high[0] <= number <= low_high[1]:
        each = "each of " if within else ""
        raise ValueError(f"{who} expects {each}`{name}` {_range(*low_high)}, got {number:.6g}.")
    return number


def is_free(value: Any) -> bool:
    """Whether a value stands for a number that is not known yet, so that it may be any.

    That is a schedule, or a traced number inside an objective. A class can be called too, and so
    can a model with arrays, but what they give is no number.
    """
    if isinstance(value, type) or (isinstance(value, Module) and any(_tree.arrays(value))):
        return False
    return callable(value) or is_tracer(value)


def _takes_a_step(rule: Rule, name: str, value: Any) -> Any:
    """A schedule, called with one argument; an error for a function that takes others."""
    if isinstance(value, types.FunctionType):
        wanted = inspect.signature(value)
        try:
            wanted.bind(0)
        except TypeError:
            raise TypeError(
                f"{type(rule).__name__} expects a schedule as `{name}`, f(step) -> value, got one "
                f"that takes {wanted}."
            ) from None
    return value


def _real_scalar(value: Any) -> bool:
    kind = getattr(value, "dtype", bool)
    real = jnp.issubdtype(kind, np.floating) or jnp.issubdtype(kind, np.integer)
    return real and getattr(value, "shape", None) == ()


def _numbers(rule: Rule, name: str, value: Any, length: int) -> tuple[Any, ...]:
    wanted = f"{length} numbers"
    if not isinstance(value, (tuple, list)) or len(value) != length:
        error = ValueError if isinstance(value, (tuple, list)) else TypeError
        raise error(f"{type(rule).__name__} expects `{name}` to be {wanted}, got {short(value)}.")
    return tuple(
        _takes_a_step(rule, name, v) if is_free(v) else _number(rule, name, v, wanted)
        for v in value
    )


def _range(low: float, high: float) -> str:
    if high >= NOT_NEGATIVE[1]:
        return f"of at least {low:g}"
    return f"in [{low:g}, 1)" if high == DECAY[1] else f"between {low:g} and {high:g}"


# --- rules as things with fields ----------------------------------------------------------


def is_rule(value: Any) -> bool:
    """Whether a value is a rule: a `Rule`, or another object with the two methods."""
    methods = (getattr(value, name, None) for name in ("init", "apply"))
    return isinstance(value, Rule) or (
        not isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and all(map(callable, methods))
    )


def check_rule(who: str, rule: Any) -> Any:
    """The rule, or an error that says what came instead."""
    if isinstance(rule, type) and issubclass(rule, Rule):
        name = rule.__name__
        raise TypeError(f"{who} expects a rule, got the class {name}. Write {name}().")
    if not is_rule(rule):
        has_both = callable(getattr(rule, "init", None)) and callable(getattr(rule, "apply", None))
        own = " A rule of your own is a dataclass: decorate its class with @dataclass."
        raise TypeError(
            f"{who} expects a rule such as fx.Adam(1e-3), got {short(rule)}."
            f"{own if has_both and not isinstance(rule, type) else ''}"
        )
    return rule


def watched(rule: Any) -> bool:
    """Whether every write to the rule and to those inside is noted in `version`.

    It is not for a dataclass with the two methods that is no `Rule`: look at its fields each time.
    """
    return all(isinstance(r, Rule) for r in rules_in(rule))


def fields_of(rule: Any) -> list[str]:
    """The names of a rule's fields, in order (of a class that is no dataclass: its attributes)."""
    cls: Any = type(rule)
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    if "__dataclass_params__" in vars(cls):
        return names
    return names + [name for name in vars(rule) if name not in names and name[0] != "_"]


def rules_in(rule: Any) -> Iterator[Any]:
    """The rule and every rule in its fields (a chain's members), outermost first."""
    yield rule
    for name in fields_of(rule):
        for inner in members_of(getattr(rule, name)):
            yield from rules_in(inner)


def with_states(rule: Any, state: Any) -> Iterator[tuple[Any, Any]]:
    """The rule and every rule inside it that has a state, each with its state."""
    yield rule, state
    for inner, below in rule.states_in(state) if hasattr(rule, "states_in") else []:
        yield from with_states(inner, below)


def members_of(value: Any) -> list[Any]:
    """The rules in a field's value."""
    if isinstance(value, (tuple, list)):
        return [inner for v in value for inner in members_of(v)]
    return [value] if is_rule(value) else []


def hyperparameters(rule: Any) -> list[str]:
    """The names that `adjust` can set, sorted: fields of the rule and of those inside it.

    >>> from fluxax.optimisers._combine import OptimiserChain
    >>> from fluxax.optimisers._descent import Descent, Momentum
    >>> hyperparameters(OptimiserChain(Momentum(), Descent()))
    ['eta', 'rho']
    """
    return sorted({name for r in rules_in(rule) for name in own_fields(r)})


def own_fields(rule: Any) -> list[str]:
    """The fields of a rule that are not rules themselves."""
    values = {name: getattr(rule, name) for name in fields_of(rule)}
    return [name for name, v in values.items() if not _is_empty(v) and not members_of(v)]


def _is_empty(value: Any) -> bool:
    return isinstance(value, tuple) and not value


def free_numbers(rule: Any) -> list[Any]:
    """What stands for numbers that are not known yet, in a rule and in those inside it."""
    values = [getattr(r, n) for r in rules_in(rule) for n in own_fields(r)]
    flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    return [v for v in flat if is_free(v)]


def assignments(rule: Any, name: str, value: Any) -> list[tuple[Any, str, Any]]:
    """What `adjust` does to a rule and those inside it: which one, which field, which value."""
    found = [(rule, name, value)] if name in own_fields(rule) else []
    inner = rule.passed_on(name, value) if hasattr(rule, "passed_on") else value
    for field in fields_of(rule):
        for member in members_of(getattr(rule, field)):
            found += assignments(member, name, inner)
    return found


def show(rule: Any) -> str:
    """A rule as its constructor, every field named."""
    inside = ", ".join(f"{n}={_shown(getattr(rule, n))}" for n in fields_of(rule))
    return f"{type(rule).__name__}({inside})"


def _shown(value: Any) -> str:
    return name_of(value) if isinstance(value, types.FunctionType) else repr(value)


def name_of(function: Any) -> str:
    """What a schedule is called: of one that a function has made, that function's name."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return "schedule" if "<lambda>" in name else name.split(".<locals>")[0].split(".")[-1]


def unknown_field(who: str, rule: Any, name: str) -> str:
    """The sentence for a field that neither a rule nor one inside it has."""
    known = ", ".join(hyperparameters(rule)) or "it has none"
    return f"{who} expects a field of {type(rule).__name__} ({known}), got `{name}`."


def is_number(value: Any) -> bool:
    """Whether a field's value is a number, and so a hyperparameter."""
    if isinstance(value, (bool, np.bool_)) or is_tracer(value):
        return False
    return isinstance(value, (int, float, np.generic)) or (
        isinstance(value, (np.ndarray, jax.Array)) and value.shape == ()
    )
