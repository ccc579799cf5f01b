"""How a rule stands in a program: its numbers as hyperparameters, scalar arrays or constants."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from fluxax.optimisers._hyper import Pack, Rows, Timed
from fluxax.optimisers._rule import fields_of, is_free, is_number, is_rule, own_fields, rules_in


def room(rules: Any) -> int:
    """How many elements a `Pack` for these rules should have: our own rules use fewer."""
    return sum(4 + 4 * len(own_fields(r)) for rule in rules for r in rules_in(rule))


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
    return _view(_settled(rule, like), f"rules[{index}]", array, pack.hyper)


def _settled(rule: Any, like: Any) -> Any:
    """A rule whose scheduled numbers are arrays."""
    return _replaced(rule, lambda v: v.on(like) if isinstance(v, Timed) else v)


def schedules_in(rule: Any) -> bool:
    """Whether a hyperparameter of a rule, or of one inside it, is a function of the step count."""
    return any(_is_schedule(r, n, getattr(r, n)) for r in rules_in(rule) for n in own_fields(r))


def _is_schedule(rule: Any, name: str, value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_is_schedule(rule, name, v) for v in value)
    default = getattr(type(rule), name, None)  # a dataclass keeps its defaults on the class
    numeric = isinstance(default, (int, float, tuple)) and not isinstance(default, bool)
    return is_free(value) and numeric and not is_rule(value)


def timed(rule: Any, evaluate: Callable[[Any], Any]) -> Any:
    """A copy of a rule with `evaluate(schedule)` in place of every schedule."""
    schedules = {id(f) for r in rules_in(rule) for f in _schedules_of(r)}
    return _replaced(rule, lambda v: evaluate(v) if id(v) in schedules else v)


def _schedules_of(rule: Any) -> list[Any]:
    values = {n: getattr(rule, n) for n in own_fields(rule)}
    found = []
    for name, value in values.items():
        if _is_schedule(rule, name, value):
            found += [v for v in (value if isinstance(value, tuple) else [value]) if is_free(v)]
    return found


def _replaced(rule: Any, new: Callable[[Any], Any]) -> Any:
    """A copy of a rule with `new(value)` in place of every field's value, or member of a tuple."""
    view = copy.copy(rule)
    for name in fields_of(rule):
        object.__setattr__(view, name, _replaced_value(getattr(rule, name), new))
    return view


def _replaced_value(value: Any, new: Callable[[Any], Any]) -> Any:
    if is_rule(value):
        return _replaced(value, new)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_replaced_value(v, new) for v in value)
    return new(value)


def static_view(rule: Any) -> Any:
    """A copy of a rule with its numbers as they are: constants of the program."""
    return _view(_replaced(rule, lambda v: v.value if isinstance(v, Timed) else v), "", None)


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
    return number(path) if number and is_number(value) else value


def _either(first: Any, apply: Any) -> Callable[[Any, Any, Any], Any]:
    def attempt(state: Any, x: Any, dx: Any) -> Any:
        try:
            return first.apply(state, x, dx)
        except TypeError:
            return apply(state, x, dx)

    return attempt
