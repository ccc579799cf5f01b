"""A number that became an input, asked what it is.

It is a JAX tracer in the trace, and would give other answers than a Python number: it has a
shape and no `is_integer`, it is no `float`, it cannot be a key of a dict. So its class becomes
one that notices who asks. JAX may; the user's code, or a package for it, makes the number a
constant again.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any

from fluxax._compile._rebuild import NUMBER_NEEDED
from fluxax._compile._spec import Sidestep
from fluxax._compile._tripwire import users_of

#: What a Python number answers alike; JAX's C++ asks for the last in the caller's name.
_ALIKE = frozenset(("real", "imag", "conjugate", "__jax_array__"))


def watch(numbers: Iterable[Any]) -> None:
    """From now on these tracers refuse questions of the user's.

    Raises:
        Sidestep: if JAX's tracers have changed so that they cannot be watched.
    """
    for number in numbers:
        try:
            number.__class__ = _watched(type(number))
        except TypeError:
            raise Sidestep(NUMBER_NEEDED) from None


@functools.cache
def _watched(cls: Any) -> Any:
    """A class of tracers like `cls` that notices who asks."""

    def asks(self: Any, name: str) -> Any:
        if name not in _ALIKE and users_of(sys._getframe(1))[0] is not None:
            raise Sidestep(NUMBER_NEEDED)
        return cls.__getattribute__(self, name)

    def counts_as_key(self: Any) -> int:
        if users_of(sys._getframe(1))[0] is not None:
            raise Sidestep(NUMBER_NEEDED)
        raise TypeError(f"unhashable type: {cls.__name__!r}")

    space = {"__slots__": (), "__module__": cls.__module__}
    return type(cls)(
        cls.__name__, (cls,), {**space, "__getattribute__": asks, "__hash__": counts_as_key}
    )
