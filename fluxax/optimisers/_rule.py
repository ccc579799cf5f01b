"""The interface of an optimisation rule, and what its hyperparameters are in a program.

A rule is a dataclass with two methods. `apply` is ordinary arithmetic on arrays and
on the rule's own fields, and runs in two ways: uncompiled, where the fields are
Python numbers, and compiled, where each is a `Hyper`: a number that is read when
the program runs, so that changing it compiles nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax.optimisers._hyper import Pack, Rows

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


#: Ranges for `limits`: a decay lies in [0, 1), so its top is the largest float below 1.
NOT_NEGATIVE = (0.0, math.inf)
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
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {"eta": NOT_NEGATIVE}
    static: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = False

    def init(self, x: Any) -> Any:
        """The state for a parameter before its first step."""
        del x
        return None

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        """The new state and the step for a parameter `x` with gradient `dx`."""
        raise TypeError(f"{type(self).__name__} expects a method apply(state, x, dx).")

    def checked(self, name: str, value: Any) -> Any:
        """A field's value as it is kept; an error if it is not one that the field can have."""
        fields: dict[str, Any] = getattr(type(self), "__dataclass_fields__", {})
        default = fields[name].default if name in fields else None
        if isinstance(default, bool):
            return _flag(self, name, value)
        if callable(value) or is_tracer(value):  # a schedule; a number of somebody's own jax.jit
            return value
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
        new, old = self.checked(name, value), self.__dict__.get(name)
        object.__setattr__(self, name, new)
        changed(structure=name in self.static or not _numbers_both(old, new))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name, None) for name in fields_of(self))

    def __repr__(self) -> str:
        return show(self)


def _numbers_both(old: Any, new: Any) -> bool:
    """Whether a change is from number to number, or from numbers to as many numbers."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return all(map(_numbers_both, old, new))
    return _is_number(old) and _is_number(new)


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
    if not low_high[0] <= number <= low_high[1]:
        each = "each of " if within else ""
        raise ValueError(f"{who} expects {each}`{name}` {_range(*low_high)}, got {number:.6g}.")
    return number


def _real_scalar(value: Any) -> bool:
    kind = getattr(value, "dtype", bool)
    real = jnp.issubdtype(kind, np.floating) or jnp.issubdtype(kind, np.integer)
    return real and getattr(value, "shape", None) == ()


def _numbers(rule: Rule, name: str, value: Any, length: int) -> tuple[Any, ...]:
    wanted = f"{length} numbers"
    if not isinstance(value, (tuple, list)) or len(value) != length:
        error = ValueError if isinstance(value, (tuple, list)) else TypeError
        raise error(f"{type(rule).__name__} expects `{name}` to be {wanted}, got {short(value)}.")
    free = lambda v: callable(v) or is_tracer(v)
    return tuple(v if free(v) else _number(rule, name, v, wanted) for v in value)


def _range(low: float, high: float) -> str:
    if high == math.inf:
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
        raise TypeError(f"{who} expects a rule such as fx.Adam(1e-3), got {short(rule)}.")
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
        for inner in _members(getattr(rule, name)):
            yield from rules_in(inner)


def _members(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [inner for v in value for inner in _members(v)]
    return [value] if is_rule(value) else []


def hyperparameters(rule: Any) -> list[str]:
    """The names that `adjust` can set, sorted: fields of the rule and of those inside it.

    >>> from fluxax.optimisers._combine import OptimiserChain
    >>> from fluxax.optimisers._descent import Descent, Momentum
    >>> hyperparameters(OptimiserChain(Momentum(), Descent()))
    ['eta', 'rho']
    """
    return sorted({name for r in rules_in(rule) for name in _own(r)})


def _own(rule: Any) -> list[str]:
    """The fields of a rule that are not rules themselves."""
    values = {name: getattr(rule, name) for name in fields_of(rule)}
    return [name for name, v in values.items() if v != () and not _members(v)]


def holders(rule: Any, name: str) -> list[Any]:
    """The rule and those inside it that have a hyperparameter of this name: whom `adjust` sets."""
    return [r for r in rules_in(rule) if name in _own(r)]


def show(rule: Any) -> str:
    """A rule as its constructor, every field named."""
    inside = ", ".join(f"{n}={getattr(rule, n)!r}" for n in fields_of(rule))
    return f"{type(rule).__name__}({inside})"


def unknown_field(who: str, rule: Any, name: str) -> str:
    """The sentence for a field that neither a rule nor one inside it has."""
    known = ", ".join(hyperparameters(rule)) or "it has none"
    return f"{who} expects a field of {type(rule).__name__} ({known}), got `{name}`."


# --- how a rule stands in a program -------------------------------------------------------


def room(rules: Any) -> int:
    """How many elements a `Pack` for these rules should have: our own rules use fewer."""
    return sum(4 + 4 * len(_own(r)) for rule in rules for r in rules_in(rule))


def hyper_view(rule: Any, pack: Pack, index: int) -> Any:
    """A copy of a rule whose numbers are `Hyper`s that read `rules[index]`; others as they are.

    Its `apply` raises a TypeError if the rule does something that a `Hyper` cannot; then try
    `array_view`, then `static_view`. Schedules (callables) are left in the fields.
    """
    return _view(rule, f"rules[{index}]", pack.hyper)


def rows_view(rule: Any, pack: Pack, indices: list[int]) -> Any:
    """The same for leaves that lie in the rows of one array: `rules[indices[k]]` in row k."""
    rows = lambda path: Rows([pack.hyper(f"rules[{i}]{path}") for i in indices], pack)
    return _view(rule, "", rows)


def is_elementwise(rule: Any) -> bool:
    """Whether a rule, and all those inside it, promise to be elementwise."""
    return all(getattr(r, "elementwise", False) for r in rules_in(rule))


def array_view(rule: Any, pack: Pack, index: int, like: Any) -> Any:
    """The same with scalar arrays in the real dtype of `like`: a JAX function takes those.

    A rule inside another (a chain's member) keeps `Hyper`s, which are exact, if it can.
    """
    array = lambda path: pack.hyper(path).on(like)
    return _view(rule, f"rules[{index}]", array, pack.hyper)


def schedules_in(rule: Any) -> bool:
    """Whether a hyperparameter of a rule, or of one inside it, is a function of the step count."""
    return any(_is_schedule(r, n, getattr(r, n)) for r in rules_in(rule) for n in _own(r))


def _is_schedule(rule: Any, name: str, value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_is_schedule(rule, name, v) for v in value)
    default = getattr(type(rule), name, None)  # a dataclass keeps its defaults on the class
    numeric = isinstance(default, (int, float, tuple)) and not isinstance(default, bool)
    return callable(value) and numeric and not is_rule(value)


def timed(rule: Any, evaluate: Callable[[Any], Any]) -> Any:
    """A copy of a rule with `evaluate(schedule)` in place of every schedule."""
    view = copy.copy(rule)
    for name in fields_of(rule):
        value = getattr(rule, name)
        if _is_schedule(rule, name, value):
            at = lambda v: evaluate(v) if callable(v) else v
            now = tuple(map(at, value)) if isinstance(value, tuple) else at(value)
            object.__setattr__(view, name, now)
        elif _members(value):
            inner = [timed(v, evaluate) if is_rule(v) else v for v in _as_list(value)]
            now = tuple(inner) if isinstance(value, (tuple, list)) else inner[0]
            object.__setattr__(view, name, now)
    return view


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def static_view(rule: Any) -> Any:
    """A copy of a rule with its numbers as they are: constants of the program."""
    return _view(rule, "", None)


def _view(rule: Any, path: str, number: Any, first: Any = None) -> Any:
    view = copy.copy(rule)
    for name in fields_of(rule):
        if name not in getattr(rule, "static", ()):
            value = _viewed(getattr(rule, name), f"{path}.{name}", number, first)
            object.__setattr__(view, name, value)
    object.__setattr__(view, "_sealed", True)
    return view


def _viewed(value: Any, path: str, number: Any, first: Any) -> Any:
    if is_rule(value):
        view = _view(value, path, number, first)
        if first:
            object.__setattr__(view, "apply", _either(_view(value, path, first), view.apply))
        return view
    if isinstance(value, (tuple, list)):
        inside = [_viewed(v, f"{path}[{i}]", number, first) for i, v in enumerate(value)]
        return type(value)(*inside) if hasattr(value, "_fields") else type(value)(inside)
    return number(path) if number and _is_number(value) else value


def _either(first: Any, apply: Any) -> Callable[[Any, Any, Any], Any]:
    def attempt(state: Any, x: Any, dx: Any) -> Any:
        try:
            return first.apply(state, x, dx)
        except TypeError:
            return apply(state, x, dx)

    return attempt


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or is_tracer(value):
        return False
    return isinstance(value, (int, float, np.generic)) or (
        isinstance(value, (np.ndarray, jax.Array)) and value.shape == ()
    )
