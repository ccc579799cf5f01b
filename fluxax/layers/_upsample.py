"""Images made larger: Upsample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import short
from fluxax._half import like, wide
from fluxax._module import Module
from fluxax.layers._conv import check_image, collapsed
from fluxax.layers._place import unfit
from fluxax.layers._shapes import as_array, as_input, whole

#: How many axes of space a mode is for; `nearest` takes one, two or three.
AXES_OF = {"nearest": None, "linear": 1, "bilinear": 2, "trilinear": 3}


class Upsample(Module):
    """Make images larger, or of a given size: `(N, H, W, C)` becomes `(N, H', W', C)`.

    Args:
        mode: `"nearest"` repeats places; `"bilinear"` interpolates between them for images,
            `"linear"` for one axis of space and `"trilinear"` for three. A number or tuple here
            is the scale, and the mode may follow: `Upsample(2, "bilinear")`.
        scale: how many times longer each axis of space becomes, a number > 0 or one per axis.
        size: the sizes of the axes of space of the output, instead of `scale`.

    Raises:
        ValueError: for an unknown mode, for both or neither of `scale` and `size`, or input with
            other axes or without a batch axis.
        TypeError: where an argument is of the wrong kind.

    Place `j` of the output has its value, along each axis, from place `j (n - 1) / (n' - 1)` of
    the input: the corners stay, as in Flux (PyTorch: `align_corners=True`); `"nearest"` takes
    place `⌊j n / n'⌋`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.Upsample(scale=(2, 3))(jnp.ones((1, 2, 2, 1))).shape
        (1, 4, 6, 1)
        >>> fx.Upsample("linear", size=(3,))(jnp.array([[[0.0], [1.0]]])).ravel().tolist()
        [0.0, 0.5, 1.0]
    """

    def __init__(self, mode: Any = "nearest", *more: str, scale: Any = None, size: Any = None):
        if not isinstance(mode, str):
            if scale is not None or len(more) > 1:
                raise ValueError(f"Upsample expects one scale, got {short(mode)} and {scale!r}.")
            scale, mode = mode, more[0] if more else "nearest"
        if mode not in AXES_OF:
            raise ValueError(f"Upsample expects mode as one of {list(AXES_OF)}, got {short(mode)}.")
        if (scale is None) == (size is None):
            both = "neither" if scale is None else "both"
            raise ValueError(f"Upsample expects either scale or size, got {both}.")
        self.mode = mode
        self.scale = None if scale is None else _scales(scale)
        self.size = None if size is None else _sizes(size)
        self._axes(None)

    def __call__(self, x: Any) -> jax.Array:
        linear = self.mode != "nearest"
        x = as_input(self, x) if linear else as_array(self, x)
        check_image(self, x, None, self._axes(max(1, x.ndim - 2)))
        if 0 in x.shape[1:-1]:
            raise unfit(self, f"expects at least one place, got {short(x)}")
        resize: Callable[..., jax.Array] = _interpolated if linear else _repeated
        y = wide(x)
        for axis, n in enumerate(self._target(x.shape[1:-1]), 1):
            y = y if y.shape[axis] == n else resize(y, axis, n)
        return like(x, y)

    def _axes(self, given: int | None) -> int:
        """How many axes of space there are, from mode, scale and size, else as many as given."""
        said = AXES_OF[self.mode]
        for what in (self.scale, self.size):
            if isinstance(what, tuple):
                if len(what) != (said or len(what)):
                    raise ValueError(
                        f"Upsample expects {said} numbers for {self.mode}, got {len(what)}."
                    )
                said = len(what)
        return said or given or 0

    def _target(self, space: tuple[int, ...]) -> tuple[int, ...]:
        if self.size is not None:
            return self.size
        scale: Any = self.scale
        scale = scale if isinstance(scale, tuple) else (scale,) * len(space)
        return tuple(max(1, int(n * s)) for n, s in zip(space, scale, strict=True))

    def _arguments(self) -> list[tuple[str, Any]]:
        what = ("size", self.size) if self.scale is None else ("scale", collapsed(self.scale))
        return [("", self.mode), what]


def _scales(scale: Any) -> Any:
    """A positive number, or a tuple of them."""
    if isinstance(scale, (tuple, list)):
        return tuple(_scales(s) for s in scale)
    if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number)):
        raise TypeError(f"Upsample expects scale as a number or several, got {short(scale)}.")
    if not 0 < scale < float("inf"):
        raise ValueError(f"Upsample expects scale above 0, got {scale}.")
    return int(scale) if scale == int(scale) else float(scale)


def _sizes(size: Any) -> tuple[int, ...]:
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"Upsample expects size as a tuple, got {short(size)}.")
    return tuple(whole("Upsample", "size", n) for n in size)


def _repeated(x: jax.Array, axis: int, n: int) -> jax.Array:
    old = x.shape[axis]
    if n % old == 0:
        return jnp.repeat(x, n // old, axis)
    return x.take(np.arange(n) * old // n, axis)


def _interpolated(x: jax.Array, axis: int, n: int) -> jax.Array:
    """A product with a matrix that has two numbers in each row: so is its derivative."""
    old = x.shape[axis]
    at = np.linspace(0, old - 1, n) if n > 1 else np.zeros(1)
    low = np.minimum(at.astype(int), max(0, old - 2))
    share = at - low
    matrix = np.zeros((n, old))
    np.add.at(matrix, (np.arange(n), low), 1 - share)
    np.add.at(matrix, (np.arange(n), np.minimum(low + 1, old - 1)), share)
    y = jnp.tensordot(jnp.asarray(matrix, x.dtype), x, (1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(y, 0, axis)
