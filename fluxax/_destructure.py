"""A model as plain data: its state as a tree, its parameters as one vector."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._between import read_between
from fluxax._errors import no_numbers, short
from fluxax._jax import is_tracer
from fluxax._module import Module
from fluxax._parameters import trainable_arrays, trainables
from fluxax._remake import remake


def state(model: Any) -> Any:
    """The arrays and plain values of a model as a tree, without its classes and functions.

    `loadmodel(model, state)` puts the arrays back, into a model that is nested alike.

    Args:
        model: any tree of arrays.

    Returns:
        A tree nested like the model, with a Node for each object. Arrays, numbers, strings and
        booleans stand where they stood, `None` where there was something else. Arrays that no
        training changes are in it too; the arrays are the model's own, not copies.

    Example:
        >>> import fluxax as fx
        >>> saved = fx.state(fx.Dense(2, 3, fx.relu, init=fx.ones32))
        >>> saved.weight.shape, saved.activation
        ((2, 3), None)
        >>> other = fx.loadmodel(fx.Dense(2, 3), saved)
        >>> float(other.weight[0, 0])
        1.0
    """
    return read_between(_state, model)


def _state(model: Any) -> Any:
    for _ in _tree.walk_nodes(model):  # a cycle is an error
        pass
    plain = (bool, int, float, complex, str, bytes, np.generic)
    return _tree.mirror(
        model, lambda _, v: v if _tree.is_array(v) or isinstance(v, plain) else None
    )


def destructure(model: Any) -> tuple[Any, Restructure]:
    """All trained numbers of a model in one vector, and the way back.

    Args:
        model: any tree of arrays.

    Returns:
        `(flat, rebuild)`. `flat` holds the trained arrays one after the other, tied ones once, in
        their common dtype. `rebuild(vector)` is a new model with those numbers, each array in its
        own shape and dtype, and everything else as it is now. Both can be differentiated.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> flat, rebuild = fx.destructure(fx.Dense(2, 3))
        >>> flat.shape, rebuild
        ((9,), Restructure(Dense, ..., 9))
        >>> rebuild(jnp.arange(9.0)).bias.tolist()
        [6.0, 7.0, 8.0]
        >>> x = jnp.ones((1, 2))
        >>> fx.gradient(lambda v: rebuild(v)(x).sum(), flat)[0].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    arrays = trainables(model)
    dtype = jnp.result_type(*arrays) if arrays else np.dtype(np.float32)
    if any(map(is_tracer, arrays)):
        flat = jnp.concatenate([jnp.ravel(a).astype(dtype) for a in arrays])
    else:  # through the host, which compiles nothing
        parts = [np.asarray(a).astype(dtype).ravel() for a in arrays]
        flat = jax.device_put(np.concatenate(parts) if parts else np.zeros(0, dtype))
    return flat, Restructure(model)


class Restructure(Module):
    """What `destructure` gives beside the vector: a function from vectors to models."""

    trainable = ()

    def __init__(self, model: Any):
        self.model = remake(model, lambda leaf: leaf)  # containers of its own: the model may change

    def __len__(self) -> int:
        return sum(math.prod(a.shape) for a in trainables(self.model))

    def __call__(self, vector: Any) -> Any:
        """The model with the numbers of a vector."""
        if not _tree.is_array(vector) or vector.shape != (len(self),):
            raise ValueError(
                f"rebuild expects a vector of length {len(self)}, got {short(vector)}."
            )
        if no_numbers(vector):
            raise TypeError(f"rebuild expects a vector of numbers, got {short(vector)}.")
        concrete = not is_tracer(vector)
        source: Any = np.asarray(vector) if concrete else vector
        new, at = {}, 0
        for _, old in trainable_arrays(self.model):
            if id(old) not in new:
                end = at + math.prod(old.shape)
                part = source[at:end].reshape(old.shape)
                part = _real(part) if not jnp.iscomplexobj(old) else part
                part, at = part.astype(old.dtype), end
                new[id(old)] = jax.device_put(part.copy()) if concrete else part
        return remake(self.model, lambda leaf: new.get(id(leaf), leaf))

    def __repr__(self) -> str:
        return f"Restructure({type(self.model).__name__}, ..., {len(self)})"

    __str__ = __repr__


def _real(part: Any) -> Any:
    """The real part, of a vector that is complex since other arrays of the model are."""
    return part.real if jnp.iscomplexobj(part) else part
