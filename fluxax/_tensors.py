"""Tensors of other libraries, PyTorch's above all, as arrays over the same memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_tensor(x: Any) -> bool:
    """Whether `x` is an array of a library that is neither NumPy nor JAX.

    >>> is_tensor(np.zeros(2)), is_tensor([1.0])
    (False, False)
    """
    return hasattr(type(x), "__dlpack__") and not isinstance(x, (np.ndarray, np.generic, jax.Array))


def array_of(x: Any) -> Any:
    """A tensor as an array over the same memory, where it lies on a device that we can read."""
    if hasattr(x, "detach"):
        return _of_torch(x.detach())
    return np.asarray(x) if hasattr(x, "__array__") else jax.dlpack.from_dlpack(x)


def owned(x: Any) -> Any:
    """A tensor as a JAX array that nobody else writes to; anything else as it is."""
    return jnp.array(array_of(x)) if is_tensor(x) else x


def as_arrays(x: Any) -> Any:
    """Nested data with its tensors as arrays; what has none is given back as it is.

    >>> batch = [np.zeros(2), {"label": "a"}]
    >>> as_arrays(batch) is batch
    True
    """
    if is_tensor(x):
        return array_of(x)
    if isinstance(x, (tuple, list)):
        new = [as_arrays(part) for part in x]
        same = all(a is b for a, b in zip(new, x, strict=True))
        make = getattr(x, "_make", list if isinstance(x, list) else tuple)
        return x if same else make(new)
    if isinstance(x, Mapping):
        named = {key: as_arrays(part) for key, part in x.items()}
        return x if all(named[key] is x[key] for key in named) else named
    return x


def _of_torch(x: Any) -> Any:
    if x.device.type != "cpu":
        try:
            return jax.dlpack.from_dlpack(x)
        except Exception:  # JAX has no such device: through the host
            x = x.cpu()
    torch: Any = sys.modules.get("torch")
    if torch is not None and x.dtype is torch.bfloat16:  # NumPy has no such type of its own
        return x.view(torch.int16).numpy().view(jnp.bfloat16)
    return x.numpy()
