"""XLA's options, program by program."""

from __future__ import annotations

import os
from typing import Any

import jax
from jaxlib import version as jaxlib_version

from fluxax._jax import jaxprs_in_params
from fluxax.kernels import _memory
from fluxax.kernels._choice import chosen

#: YNNPACK, a library of kernels, is on by default from jaxlib 0.10 on. Its products are good; its
#: convolutions are up to seven times slower here than XLA's own (and are reported to crash or
#: hang: jax#39257).
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
_FIRST_WITH_YNNPACK = (0, 10)

#: XLA on a CPU takes barriers out before it fuses, so that they hold nothing apart. Without this
#: pass they stay.
DISABLED, BARRIERS = "xla_disable_hlo_passes", "cse_barrier_expander"

#: A program's temporary memory comes in pieces of at most so many bytes, not as one block. The
#: places from which glibc serves a thread hold 64 MB: two pieces.
PIECES = "xla_multiheap_size_constraint_per_heap"
PIECE = 30 << 20


def options_for(
    jaxpr: Any = None, platform: str | None = None, *, looped: bool = False
) -> dict[str, Any] | None:
    """The options with which a program is compiled, for `jax.jit(f, compiler_options=…)`.

    The rule, on a CPU only: barriers stay where kernels put them, but not in a program with a
    loop; YNNPACK is off for a program with a convolution in it, with a jaxlib that has YNNPACK; and
    temporary memory comes in pieces that can be kept for the next step, unless programs are kept
    on disk (`compilation_cache`), which XLA refuses for those with pieces. (XLA turns a small loop
    into one kernel, and cannot do that with a barrier inside: "Unhandled opcode for elemental IR
    emission: opt-barrier".)

    What stands in the environment goes first: an option that `XLA_FLAGS` names is left alone, and
    `FLUXAX_XLA="name=value name=value"` says which options there are instead of the rule's;
    `FLUXAX_XLA=` (empty) means none.

    Args:
        jaxpr: the program, before its derivative is taken; `None` for one without layers.
        platform: where it runs, JAX's default if not given.
        looped: whether the program is run in a loop that is not part of the jaxpr.

    Raises:
        ValueError: if `FLUXAX_XLA` is not written like that.

    Example:
        >>> options_for(None, "gpu") is None
        True
    """
    own = os.environ.get("FLUXAX_XLA")
    if own is not None:
        return _parsed(own) or None
    if jaxpr is None or (platform or jax.default_backend()) != "cpu":
        return None
    _memory.keep_once()
    loops = looped or _has(jaxpr, "scan") or _has(jaxpr, "while")
    options: dict[str, Any] = {DISABLED: BARRIERS} if chosen() and not loops else {}
    if _has_ynnpack(jaxlib_version.__version__) and _has(jaxpr, "conv_general_dilated"):
        options[YNNPACK] = ""
    if not _on_disk():
        options[PIECES] = max(PIECE, _largest(jaxpr))
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags} or None


def not_taken(error: Exception) -> bool:
    """Whether XLA could not compile a program because a barrier stands where it can't have one."""
    return "opt-barrier" in str(error)


def _has(jaxpr: Any, primitive: str) -> bool:
    """Whether a program, or one inside it, has an operation."""
    return any(
        eqn.primitive.name == primitive
        or any(_has(inner, primitive) for inner in jaxprs_in_params(eqn.params))
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def _largest(jaxpr: Any, times: int = 1) -> int:
    """Bytes of the largest array in a program; loops may keep one of every turn."""
    found = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        turns = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        inner = [_largest(inner, turns) for inner in jaxprs_in_params(eqn.params)]
        here = [times * _bytes(v.aval) for v in eqn.outvars]
        found = max([found, *inner, *here])
    return found


def _bytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize if hasattr(aval, "dtype") else 0


def _on_disk() -> bool:
    """Whether JAX keeps programs on disk, which it can only where their memory is one block."""
    kept = jax.config.values
    return bool(kept["jax_compilation_cache_dir"] and kept["jax_enable_compilation_cache"])


def _has_ynnpack(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= _FIRST_WITH_YNNPACK


_BOOLEANS = {"true": True, "false": False}


def _parsed(text: str) -> dict[str, Any]:
    pairs = [word.partition("=") for word in text.split()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(
                f"FLUXAX_XLA expects words like `name=value`, got {name or text!r}. "
                "See docs/design/cpu.md."
            )
    return {name.lstrip("-"): _BOOLEANS.get(value, value) for name, _, value in pairs}
