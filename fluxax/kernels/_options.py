"""XLA's options, program by program."""

from __future__ import annotations

import os
from typing import Any

import jax
import jaxlib

#: YNNPACK, a library of kernels, is on by default from jaxlib 0.10 on. Its convolutions are up to
#: seven times slower here than XLA's own (and reported to crash or hang: jax#39257).
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
_FIRST_WITH_YNNPACK = (0, 10)


def options_for(platform: str | None = None) -> dict[str, Any] | None:
    """The options with which a program is compiled, for `jax.jit(f, compiler_options=…)`.

    The rule: on a CPU, with a jaxlib that has it, YNNPACK is off. Elsewhere there are no options.
    What stands in the environment goes first: an option that `XLA_FLAGS` names is left alone, and
    `FLUXAX_XLA="name=value name=value"` says which options there are instead of the rule's;
    `FLUXAX_XLA=` (empty) means none.

    Args:
        platform: where the program runs, JAX's default if not given.

    Raises:
        ValueError: if `FLUXAX_XLA` is not written like that.

    Example:
        >>> options_for("gpu") is None
        True
    """
    own = os.environ.get("FLUXAX_XLA")
    if own is not None:
        return _parsed(own) or None
    if (platform or jax.default_backend()) != "cpu" or not _has_ynnpack(jaxlib.__version__):
        return None
    return None if YNNPACK in os.environ.get("XLA_FLAGS", "") else {YNNPACK: ""}


def _has_ynnpack(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= _FIRST_WITH_YNNPACK


def _parsed(text: str) -> dict[str, Any]:
    pairs = [word.partition("=") for word in text.split()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(
                f"FLUXAX_XLA expects words like `name=value`, got {name or text!r}. "
                "See docs/design/cpu.md."
            )
    return {name.lstrip("-"): value for name, _, value in pairs}
