"""What comes out of a model and of each of its layers, without running it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, SequenceKey

from fluxax import _show, _tree
from fluxax._errors import no_array, no_numbers, short
from fluxax._module import Module, testmode
from fluxax.layers._containers import Chain


def outputsize(
    model: Any, *shapes: tuple[int, ...], padbatch: bool = False, dtype: Any = np.float32
) -> Any:
    """The shape of what a model gives for input of a shape; nothing is computed.

    Args:
        model: anything that can be called on arrays; several layers in a list or tuple count as
            a Chain of them.
        shapes: the shapes of its inputs, batch axis included.
        padbatch: whether a batch axis of length one is put before each shape.
        dtype: the type of the inputs; `"int32"` for an Embedding.

    Returns:
        A shape; for a model that gives several arrays, the same structure of shapes.

    Raises:
        ValueError: what a layer says of input that it cannot take.

    Example:
        >>> import fluxax as fx
        >>> fx.outputsize(fx.Chain(fx.Conv((3, 3), 3, 8), fx.flatten), (1, 32, 32, 3))
        (1, 7200)
        >>> fx.outputsize([fx.Dense(10, 4), fx.relu], (10,), padbatch=True)
        (1, 4)
    """
    model = Chain(*model) if type(model) in (list, tuple) else model
    _check("outputsize", model)
    for shape in shapes:
        if not isinstance(shape, (tuple, list)) or not all(
            isinstance(n, (int, np.integer)) for n in shape
        ):
            raise TypeError(
                f"outputsize expects shapes as tuples of integers, got {short(shape)}. "
                "Write outputsize(model, (1, 28, 28, 1))."
            )
    dtype, lead = jax.dtypes.canonicalize_dtype(dtype), (1,) if padbatch else ()
    given = [jax.ShapeDtypeStruct((*lead, *shape), dtype) for shape in shapes]
    out = jax.eval_shape(lambda *xs: _arrays_of(_quiet(model)(*xs)), *given)
    return jax.tree.map(lambda array: array.shape, out)


def _arrays_of(out: Any) -> Any:
    for part in jax.tree.leaves(out):
        if no_array(part):
            raise TypeError(f"outputsize expects a model that gives arrays, got {short(part)}.")
    return out


def summary(model: Any, *inputs: Any) -> str:
    """The printed model with what comes out of every layer; nothing is computed.

    Args:
        model: a Module, or a function.
        inputs: what it is called on, arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        The text; `print(fx.summary(model, x))` shows it.

    Raises:
        ValueError: what a layer says of input that it cannot take.

    Example:
        >>> import fluxax as fx, numpy as np
        >>> print(fx.summary(fx.Chain(fx.Dense(4, 3, fx.relu), fx.flatten), np.ones((5, 4))))
        Chain(
          Dense(4, 3, relu),                    # f32[5,3], 15 parameters
          flatten,                              # f32[5,3]
        )                   # Total: 2 arrays, 15 parameters, 60 bytes.

    A layer that is called several times shows what came out last; one that is not called, nothing.
    """
    _check("summary", model)
    for x in inputs:
        if no_numbers(x):
            raise TypeError(f"summary expects arrays to call the model on, got {short(x)}.")
    seen: dict[_tree.Path, str] = {}
    recording = _recording(_quiet(model), (), seen)
    jax.eval_shape(lambda *xs: recording(*xs), *inputs)
    return _show.text(model, lambda path: seen.get(path, ""))


def _check(who: str, model: Any) -> None:
    if not callable(model):
        raise TypeError(f"{who} expects a model first, got {short(model)}.")


def _quiet(model: Any) -> Any:
    """The model in new containers, in test mode, so that a trace leaves nothing behind."""
    for _ in _tree.walk_nodes(model):  # a cycle is an error
        pass
    twin = _tree.map_leaves(lambda leaf: leaf, model)
    testmode(twin)
    return twin


def _recording(value: Any, path: _tree.Path, seen: dict[_tree.Path, str]) -> Any:
    """The same containers, in which every layer notes what comes out of it."""
    kind = _tree.kind_of(value)
    if kind is None:
        # A function in a list of layers; one in an attribute is an activation or the like.
        listed = not path or isinstance(path[-1], (SequenceKey, DictKey))
        return _noted(value, path, seen) if listed and callable(value) else value
    for key, part in kind.parts(value):
        new = _recording(part, (*path, key), seen)
        if new is not part and kind.assign is not None:
            kind.assign(value, key, new)
    if not isinstance(value, Module):
        return value
    value.__class__ = _recorder(type(value))
    vars(value)["_note"] = (path, seen)
    return value


@functools.cache
def _recorder(cls: type[Module]) -> Any:
    original: Any = cls

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = original.__call__(self, *args, **kwargs)
        path, seen = vars(self)["_note"]
        seen[path] = _shapes(out)
        return out

    return type(cls.__name__, (cls,), {"__call__": call})


def _noted(function: Any, path: _tree.Path, seen: dict[_tree.Path, str]) -> Any:
    def call(*args: Any) -> Any:
        out = function(*args)
        seen[path] = _shapes(out)
        return out

    return call


def _shapes(out: Any) -> str:
    if isinstance(out, (tuple, list)):
        return "(" + ", ".join(map(_shapes, out)) + ")"
    return short(out)
