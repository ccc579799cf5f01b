"""Which rule each array of a model gets: one for all, by parts, or by a function."""

from __future__ import annotations

import copy
import inspect
import re
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from fluxax import _tree
from fluxax._parameters import dotted
from fluxax.optimisers._combine import check_downhill
from fluxax.optimisers._optax import as_rule
from fluxax.optimisers._rule import is_rule

#: What of a path a name in a prefix may stand for: `layers[0]` is `layers.0` and `layers.enc` too.
Names = list[set[str]]


def chosen_rules(rule: Any, model: Any, wanted: dict[_tree.Path, Any]) -> dict[_tree.Path, Any]:
    """By path: the rule for the array there, a copy of its own; `None` if it is not trained.

    Args:
        rule: what `setup` was given.
        model: the model.
        wanted: the arrays that may be trained.
    """
    choose = _chooser(rule, model, wanted)
    found = {path: choose(path, array) for path, array in wanted.items()}
    for one in {id(r): r for r in found.values() if r is not None}.values():
        check_downhill(one)
    return {path: copy.deepcopy(r) for path, r in found.items() if r is not None}


def _chooser(
    rule: Any, model: Any, wanted: Iterable[_tree.Path]
) -> Callable[[_tree.Path, Any], Any]:
    if type(rule) is dict and (not rule or all(isinstance(k, str) for k in rule)):
        return _by_prefix(rule, model, wanted)
    if _is_function(rule):
        _check_function(rule)
        return lambda path, array: _checked(
            rule(dotted(model, path), array), f"the function's result for {dotted(model, path)}"
        )
    one = as_rule("setup", rule)
    return lambda path, array: one


def _is_function(rule: Any) -> TypeGuard[Callable[[str, Any], Any]]:
    plain = callable(rule) and _tree.kind_of(rule) is None  # a model is callable too
    return plain and not is_rule(rule) and not isinstance(rule, type)


def _check_function(rule: Any) -> None:
    """A function that gives rules takes a path and an array; one of Optax's was not called."""
    name = getattr(rule, "__name__", "")
    if getattr(rule, "__module__", None) and rule.__module__.split(".")[0] == "optax":
        raise TypeError(
            f"setup expects an Optax transformation, got the function {name}. "
            f"Call it: optax.{name}(...)."
        )
    if isinstance(rule, types.FunctionType):
        wanted = inspect.signature(rule)
        try:
            wanted.bind("", None)
        except TypeError:
            raise TypeError(
                "setup expects a rule, or a function of path and array that gives one, "
                f"got a function that takes {wanted}."
            ) from None


def _checked(rule: Any, what: str) -> Any:
    if rule is None:
        return None
    try:
        return as_rule("setup", rule)
    except TypeError as error:
        raise TypeError(f"{str(error).rstrip('.')} as {what}.") from None


def _by_prefix(
    rules: dict[str, Any], model: Any, wanted: Iterable[_tree.Path]
) -> Callable[[_tree.Path, Any], Any]:
    """The rule of the longest prefix that fits; none where none does."""
    names = {path: _names(model, path) for path in wanted}
    prefixes = {prefix: re.findall(r"[^.\[\]'\"]+", prefix) for prefix in rules}
    checked = {prefix: _checked(rule, f"the rule of {prefix!r}") for prefix, rule in rules.items()}
    for prefix, parts in prefixes.items():
        if not any(_fits(parts, n) for n in names.values()):
            known = ", ".join(dict.fromkeys(_shallow(model, path, len(parts)) for path in names))
            raise ValueError(
                f"setup expects prefixes of paths to arrays, got {prefix!r}, which no array's path "
                f"begins with. There are: {known or 'none'}."
            )

    def choose(path: _tree.Path, array: Any) -> Any:
        del array
        fitting = [prefix for prefix, parts in prefixes.items() if _fits(parts, names[path])]
        longest = max(fitting, key=lambda prefix: len(prefixes[prefix]), default=None)
        return None if longest is None else checked[longest]

    return choose


def _fits(parts: list[str], names: Names) -> bool:
    return len(parts) <= len(names) and all(
        part in name for part, name in zip(parts, names, strict=False)
    )


def _names(model: Any, path: _tree.Path) -> Names:
    found = []
    for key in path:
        index = _tree.key_name(key)
        name = model.names[index] if isinstance(model, _tree.NamedList) else None
        found.append({str(index)} | ({name} if name else set()))
        model = dict(_tree.parts(model))[key]
    return found


def _shallow(model: Any, path: _tree.Path, length: int) -> str:
    return dotted(model, path[: max(1, length)])
