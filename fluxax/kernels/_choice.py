"""Whether kernels run as written for the compiler, or by their plain formulas."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

CHOICES = ("auto", "own", "plain")


def _checked(who: str, which: str) -> str:
    if which not in CHOICES:
        raise ValueError(f"{who} expects one of {', '.join(CHOICES)}, got {which!r}.")
    return which


_default = _checked("FLUXAX_KERNELS", os.environ.get("FLUXAX_KERNELS", "auto"))
_choice: ContextVar[str] = ContextVar("_choice", default=_default)


def chosen() -> bool:
    """Whether what is traced now gets its own derivative rules: on a CPU, unless told otherwise."""
    which = _choice.get()
    return which == "own" or (which == "auto" and jax.default_backend() == "cpu")


@contextmanager
def choose(which: str) -> Iterator[None]:
    """Choose for what is traced inside: `own` rules, the `plain` formulas, or `auto`.

    What was compiled before stays as it is. The environment variable `FLUXAX_KERNELS` chooses for
    a whole process. `auto`, the default, is `own` on a CPU and `plain` elsewhere.

    Raises:
        ValueError: for another word.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> with fx.kernels.choose("plain"):
        ...     fx.gradient(lambda x: jnp.sum(fx.Dense(2, 1)(x)), jnp.ones((3, 2)))[0].shape
        (3, 2)
    """
    token = _choice.set(_checked("choose", which))
    try:
        yield
    finally:
        _choice.reset(token)
