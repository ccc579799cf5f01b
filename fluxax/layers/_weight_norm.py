"""A layer whose weights are lengths and directions: WeightNorm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._half import like, wide
from fluxax._jax import is_tracer
from fluxax._module import Module
from fluxax.layers._shapes import axes_of, flux_dims


class WeightNorm(Module):
    """A layer with one of its weights split into length and direction, trained apart.

        w = g v / ‖v‖

    Args:
        layer: a Module; its own array becomes `v`.
        which: the name of that array.
        axis: the axes over which the norm is taken, one or several. All but the last, if not
            given, so that every output has its own length.
        dims: another word for `axis`, Flux's.

    Raises:
        TypeError: where `layer` is no Module.
        ValueError: where it has no such array, or the array no such axis.

    `g` starts as the norm, so that nothing changes at first. Flux takes the norm over the last
    axis of its arrays: the same for Dense, but the output channels of Conv; the paper and PyTorch
    have it as here.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.WeightNorm(fx.Dense(4, 3))
        >>> print(layer)
        WeightNorm(
          Dense(4, 3),                          # 15 parameters
          g=f32[1,3],                           # 3 parameters
        )                   # Total: 3 arrays, 18 parameters, 72 bytes.
        >>> layer(jnp.ones((2, 4))).shape
        (2, 3)

    Reference: Salimans & Kingma 2016, arXiv:1602.07868, eq. 2.
    """

    def __init__(self, layer: Any, which: str = "weight", *, axis: Any = None, dims: Any = None):
        if not isinstance(layer, Module):
            raise TypeError(f"WeightNorm expects a layer, got {short(layer)}.")
        v: Any = getattr(layer, which, None) if isinstance(which, str) else None
        if not _tree.is_array(v) or not _tree.is_inexact(v):
            raise ValueError(f"WeightNorm expects an array `{which}` in {layer!r}, got {short(v)}.")
        self.layer = layer
        self.which = which
        axis, n = flux_dims("WeightNorm", axis, dims), np.ndim(v)
        self.dims = tuple(range(n - 1)) if axis is None else axes_of("WeightNorm", axis, n)
        # With NumPy, since building a model compiles nothing; inside an objective it is traced.
        exact: Any = wide(v) if is_tracer(v) else np.asarray(v, np.result_type(v.dtype, np.float64))
        norm = (exact * exact.conj()).real.sum(self.dims, keepdims=True) ** 0.5
        self.g = jax.device_put(norm.astype(jnp.finfo(v.dtype).dtype))

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        inner, _part = self._normalised(), ".layer"  # `_part`: see `_place.RUNNING`
        before = dict(vars(inner))
        y = inner(*inputs, **options)
        for name, value in vars(inner).items():
            if value is not before.get(name):  # a state that the layer wrote
                setattr(self.layer, name, value)
        return y

    def _normalised(self) -> Any:
        """The layer with `w` in the place of `v`."""
        v = getattr(self.layer, self.which)
        square = jnp.real(v * jnp.conj(v)) if jnp.iscomplexobj(v) else jnp.square(wide(v))
        squares = jnp.sum(square, self.dims, keepdims=True)
        norm = jnp.sqrt(jnp.where(squares == 0, 1, squares))  # of zeros: w = 0, with a derivative
        inner = object.__new__(type(self.layer))
        inner.__dict__.update(vars(self.layer))
        inner.__dict__[self.which] = like(v, wide(v) * (wide(self.g) / norm))
        return inner

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", self.layer)]
        if self.which != "weight":
            shown.append(("", self.which))
        if self.dims != tuple(range(np.ndim(self.g) - 1)):
            shown.append(("axis", self.dims))
        return [*shown, ("g", self.g)]
