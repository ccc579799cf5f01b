"""A state tree, a model and a gradient side by side: do they belong together?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._errors import no_numbers, short
from fluxax._jax import is_tracer
from fluxax._module import Module, run
from fluxax.optimisers._state import Leaf, leaves_of

Path = _tree.Path


def _names(value: Any) -> list[Any] | None:
    return (
        None if _tree.kind_of(value) is None else [_tree.key_name(k) for k, _ in _tree.parts(value)]
    )


def match_model(who: str, tree: Any, model: Any) -> list[tuple[Path, Leaf, Any]]:
    """The leaves of a state tree with their paths in the model and the arrays there.

    Raises:
        ValueError: at the first place where the state does not belong to the model.
    """
    leaves_of(who, tree)
    found = list(_pairs(who, tree, model, ()))
    _check_ties(who, found)
    return found


def _pairs(who: str, tree: Any, model: Any, path: Path) -> Iterator[tuple[Path, Leaf, Any]]:
    where = _tree.path_string(path)
    if isinstance(tree, Leaf):
        _check_array(who, tree, model, where)
        yield path, tree, model
        return
    if tree is None:
        return
    mine, theirs = _names(tree), _names(model)
    if theirs is None or mine != theirs:
        raise ValueError(
            f"{who} expects the state tree of this model, got one of another structure at {where}: "
            f"{_difference(mine or [], theirs, model)}. Call setup for this model."
        )
    for (_, below), (key, part) in zip(_tree.parts(tree), _tree.parts(model), strict=True):
        yield from _pairs(who, below, part, (*path, key))


def _difference(mine: list[Any], theirs: list[Any] | None, model: Any) -> str:
    if theirs is None:
        return f"the model has {short(model)} there"
    for name in mine:
        if name not in theirs:
            return f"the model has no `{name}`"
    for name in theirs:
        if name not in mine:
            return f"the state has no `{name}`"
    return "the parts are in another order"


def _check_array(who: str, leaf: Leaf, array: Any, where: str) -> None:
    if is_tracer(array) and (run.trace is None or who != "update"):
        outside = "jax.jit" if run.trace is None else "the objective; inside, write fx.update"
        raise TypeError(
            f"{who} expects concrete arrays, got a traced one at {where}. "
            f"Call it outside of {outside}."
        )
    fits = _tree.is_array(array) and tuple(array.shape) == leaf.shape
    if not fits or not _tree.is_inexact(array):
        bfloat16 = leaf.dtype == "bfloat16"
        wanted = leaf.shape if bfloat16 else short(np.empty(leaf.shape, leaf.dtype))
        raise ValueError(
            f"{who} expects {wanted} at {where}, as when setup was called, got {short(array)}. "
            "Call setup again for that part."
        )


def _check_ties(who: str, found: list[tuple[Path, Leaf, Any]]) -> None:
    """One leaf for one array: arrays tied or untied since `setup` need another state."""
    by_leaf: dict[int, tuple[Path, Any]] = {}
    by_array: dict[int, tuple[Path, Leaf]] = {}
    for path, leaf, array in found:
        first, same = by_leaf.setdefault(id(leaf), (path, array))
        other, owner = by_array.setdefault(id(array), (path, leaf))
        if same is not array or owner is not leaf:
            now = "no longer one array" if same is not array else "one array now"
            a, b = _tree.path_string(first if same is not array else other), _tree.path_string(path)
            raise ValueError(
                f"{who} expects the ties of the model as at setup, but {a} and {b} are {now}. "
                "Call setup again."
            )


def match_gradient(who: str, tree: Any, grad: Any, model: Any) -> dict[Path, Any]:
    """The gradient arrays by path; those that are `None` are left out.

    Raises:
        ValueError: if the gradient is nested otherwise or has another shape somewhere.
    """
    if isinstance(grad, tuple) and not isinstance(model, tuple):
        hint = "Pass `grads[0]`." if len(grad) else "There is none in it."
        if hasattr(grad, "_fields"):
            hint = "Write `val, grads = fx.withgradient(...)` and pass `grads[0]`."
        raise ValueError(
            f"{who} expects the gradient of the model, got a tuple of {len(grad)}. {hint}"
        )
    if isinstance(model, _tree.Node) and isinstance(grad, Module):
        raise TypeError(
            f"{who} expects a model and then its gradient, got a Node and {short(grad)}. "
            f"The order is {who}(opt_state, model, grads[0])."
        )
    return dict(_gradients(who, tree, grad, ()))


def _gradients(who: str, tree: Any, grad: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    where = _tree.path_string(path, "grad")
    if grad is None or tree is None:
        return
    if isinstance(tree, Leaf):
        shape = getattr(grad, "shape", () if isinstance(grad, (int, float)) else None)
        if shape is None or tuple(shape) != tree.shape:
            wanted = "an array of shape " + str(tree.shape)
            raise ValueError(
                f"{who} expects {wanted} at {where}, got {short(grad)}. "
                "It must be this model's gradient."
            )
        if isinstance(grad, Leaf) or no_numbers(grad):
            got = "a Leaf of a state tree" if isinstance(grad, Leaf) else short(grad)
            raise TypeError(f"{who} expects a gradient at {where}, got {got}.")
        if np.issubdtype(tree.dtype, np.floating) and np.iscomplexobj(grad):
            raise ValueError(
                f"{who} expects a real gradient at {where}, got {short(grad)}. Pass its real part."
            )
        yield path, grad
        return
    mine, theirs = _names(tree), _names(grad)
    if (
        theirs is None
        or not set(theirs) <= set(mine or [])
        or (isinstance(tree, (list, tuple)) and mine != theirs)
    ):
        got = short(grad) if theirs is None else f"parts {theirs}, not {mine}"
        raise ValueError(
            f"{who} expects the gradient of this model, got one of another structure at {where}: "
            f"{got}. Pass what fx.gradient gave for it."
        )
    below = {_tree.key_name(k): v for k, v in _tree.parts(grad)}
    for key, part in _tree.parts(tree):
        yield from _gradients(who, part, below.get(_tree.key_name(key)), (*path, key))
