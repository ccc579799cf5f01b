"""Moving trees between devices, and converting their arrays: new trees, ties kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import is_key, is_tracer
from fluxax._remake import remake
from fluxax._state_copies import converted_state, is_state, moved_state
from fluxax.layers._norm import WideNorm
from fluxax.optimisers._state import Leaf

_ABSENT: Any = object()


def cpu(tree: Any) -> Any:
    """A tree with its arrays in the memory of the CPU.

    Args:
        tree: any tree of arrays: a model, a state tree, a batch. Tied arrays stay tied; what is
            there already is not copied. A bare array gives an array.

    Example:
        >>> import fluxax as fx
        >>> model = fx.cpu(fx.Dense(2, 3))
        >>> model.weight.device.platform
        'cpu'
    """
    return _moved(tree, lambda a: _onto(a, jax.devices("cpu")[0], lazy=True))


def gpu(tree: Any) -> Any:
    """A tree with its arrays on the GPU; without one, the tree itself, and one warning.

    Args:
        tree: any tree of arrays, as for `cpu`. NumPy arrays become JAX arrays there.
    """
    try:
        found = jax.devices("gpu")[0]
    except RuntimeError:
        if not _warned:
            _warned.append(True)
            warnings.warn(
                "gpu found no GPU that JAX can use: everything stays where it is. "
                "jax.devices() lists what there is.",
                stacklevel=2,
            )
        return tree
    return _moved(tree, lambda a: _onto(a, found, lazy=True))


_warned: list[bool] = []


def device(which: Any = None, tree: Any = _ABSENT) -> Any:
    """A device by name; called on a tree, or given one, it moves the tree there.

    Args:
        which: `"cpu"`, `"gpu:1"`, a JAX device or sharding; `None` for JAX's default device.
        tree: any tree of arrays; the two may stand in either order.

    Returns:
        The moved tree; without `tree` a function that moves one.

    Raises:
        ValueError: if there is no such device.
        TypeError: if `which` names none.

    Example:
        >>> import fluxax as fx
        >>> there = fx.device("cpu:0")
        >>> there
        device('cpu:0')
        >>> there(fx.Dense(2, 3)).weight.committed
        True
    """
    if tree is not _ABSENT and not _names_device(which) and _names_device(tree):
        which, tree = tree, which
    place = Placement(_found(which))
    return place if tree is _ABSENT else place(tree)


class Placement:
    """What `device` gives: a function that moves trees to one device."""

    def __init__(self, where: Any):
        self.where = where

    def __call__(self, tree: Any) -> Any:
        return _moved(tree, lambda a: _onto(a, self.where, lazy=False))

    def __repr__(self) -> str:
        if isinstance(self.where, jax.Device):
            return f"device('{self.where.platform}:{self.where.id}')"
        return f"device({self.where!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and other.where == self.where

    def __hash__(self) -> int:
        return hash(self.where)


def _names_device(value: Any) -> bool:
    return value is None or isinstance(value, (str, jax.Device, jax.sharding.Sharding, Placement))


def _found(which: Any) -> Any:
    if isinstance(which, Placement):
        return which.where
    if which is None:
        return getattr(jax.config, "jax_default_device", None) or jax.devices()[0]
    if not isinstance(which, str):
        if _names_device(which):
            return which
        raise TypeError(
            f'device expects a name such as "cpu:0" or a JAX device, got {short(which)}.'
        )
    platform, _, number = which.partition(":")
    try:
        return jax.devices(platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        known = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise ValueError(
            f"device expects a device that JAX has ({known}), got {which!r}."
        ) from None


def _onto(array: Any, where: Any, *, lazy: bool) -> Any:
    """An array on a device. Lazy: one that is on such a device already stays as it is."""
    if is_tracer(array) or (isinstance(array, np.ndarray) and array.dtype.kind not in "biufcV"):
        return array
    on = {d.platform for d in array.devices()} if isinstance(array, jax.Array) else {"cpu"}
    if lazy and on == {where.platform}:
        return array
    return jax.device_put(array, where)


def _moved(tree: Any, move: Callable[[Any], Any]) -> Any:
    if _has_leaves(tree):
        return (
            moved_state(tree, move) if is_state(tree) else _by_part(tree, lambda v: _moved(v, move))
        )
    return remake(tree, lambda leaf: move(leaf) if _tree.is_array(leaf) else leaf)


def _has_leaves(tree: Any) -> bool:
    return any(isinstance(leaf, Leaf) for _, leaf in _tree.walk(tree))


def _by_part(tree: Any, new: Callable[[Any], Any]) -> Any:
    """A container of state trees and other things."""
    kind = _tree.kind_of(tree)
    assert kind is not None
    return kind.rebuild(tree, [new(part) for _, part in kind.parts(tree)])


# --- dtypes -------------------------------------------------------------------------------


def f32(tree: Any) -> Any:
    """A tree with its floating arrays in float32, complex ones in complex64.

    Args:
        tree: any tree of arrays: a model, a state tree. Integers, booleans and random keys stay as
            they are, tied arrays stay tied, and what has the dtype already is not copied.

    Example:
        >>> import fluxax as fx
        >>> fx.f32(fx.f16(fx.Dense(2, 3))).weight.dtype
        dtype('float32')
    """
    return _in_dtype(tree, np.float32)


def f16(tree: Any) -> Any:
    """A tree with its floating arrays in float16; complex ones in complex64.

    Those of BatchNorm, InstanceNorm and GroupNorm are in float32, as Flux keeps them: what goes
    through these layers is in half precision nevertheless.

    Args:
        tree: as for `f32`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> half = fx.f16(fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3)))
        >>> half[1].scale.dtype, half(jnp.ones((4, 2))).dtype
        (dtype('float32'), dtype('float16'))
    """
    return _in_dtype(tree, np.float16)


def bf16(tree: Any) -> Any:
    """A tree with its floating arrays in bfloat16; complex ones in complex64; norms as in `f16`."""
    return _in_dtype(tree, jnp.bfloat16)


def f64(tree: Any) -> Any:
    """A tree with its floating arrays in float64, complex ones in complex128; needs the x64 mode.

    Raises:
        ValueError: if JAX's x64 mode is off.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise ValueError(
            "f64 expects JAX's x64 mode, got it turned off. "
            'Write jax.config.update("jax_enable_x64", True) first.'
        )
    return _in_dtype(tree, np.float64)


def _of_norms(tree: Any) -> set[int]:
    """Which arrays belong to norms that stay in float32."""
    norms = (part for _, part in _tree.walk_nodes(tree) if isinstance(part, WideNorm))
    return {id(array) for norm in norms for _, array in _tree.walk(norm)}


def _in_dtype(tree: Any, dtype: Any) -> Any:
    wide = {np.float64: np.complex128}.get(dtype, np.complex64)
    single = _of_norms(tree) if np.dtype(dtype).itemsize == 2 else set()

    def array(a: Any) -> Any:
        if not _tree.is_array(a) or is_key(a) or not _tree.is_inexact(a):
            return a
        real = np.float32 if id(a) in single else dtype
        wanted = np.dtype(wide if jnp.issubdtype(a.dtype, np.complexfloating) else real)
        return a if a.dtype == wanted else a.astype(wanted)

    if _has_leaves(tree):
        again = lambda part: _in_dtype(part, dtype)
        return converted_state(tree, array) if is_state(tree) else _by_part(tree, again)
    return remake(tree, array)
