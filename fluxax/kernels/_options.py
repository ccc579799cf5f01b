"""XLA's options, program by program."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jaxlib import version as jaxlib_version

from fluxax._jax import holds
from fluxax._jax_parts import LESS, PARTS, Part, look
from fluxax._primitives import has, inside, may_loop, turns
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

#: XLA makes one kernel of a small loop and all that is in it. The same operations may round
#: otherwise there than as kernels of their own, so a loop over steps is kept from it. What is small
#: was told from the size of all arrays until jaxlib 0.11, and a loop over steps never was; from
#: 0.12 on it is told from what the loop does, and then the loops inside a step must stay as well.
SMALL_LOOPS = "small-while-loop-hoisting"
_SMALL_BY_WORK = (0, 12)

#: A program's temporary memory comes in pieces of at most so many bytes, not as one block. The
#: places from which glibc serves a thread hold 64 MB: two pieces.
PIECES = "xla_multiheap_size_constraint_per_heap"
PIECE = 30 << 20

#: Why each option is there, in a line.
WHY = {
    DISABLED: "barriers between layers stay, steps in a loop round as alone",
    YNNPACK: "its convolutions are slow",
    PIECES: "temporary memory can be kept for the next step",
}


def options_for(
    jaxpr: Any = None, platform: str | None = None, *, training: bool = False
) -> dict[str, Any] | None:
    """The options with which a program is compiled, for `jax.jit(f, compiler_options=…)`.

    The rule, on a CPU only: barriers stay where kernels put them, but not in a program with a
    loop; YNNPACK is off for a program with a convolution in it, with a jaxlib that has YNNPACK; and
    temporary memory comes in pieces that can be kept for the next step, unless programs are kept
    on disk (`compilation_cache`), which XLA refuses for those with pieces. (XLA turns a small loop
    into one kernel, and cannot do that with a barrier inside: "Unhandled opcode for elemental IR
    emission: opt-barrier".) A step is compiled alike alone and in a loop, and that loop does not
    become one kernel, so that the numbers are the same bits.

    What stands in the environment goes first: an option that `XLA_FLAGS` names is left alone, and
    `FLUXAX_XLA="name=value name=value"` says which options there are instead of the rule's;
    `FLUXAX_XLA=` (empty) means none.

    Args:
        jaxpr: the program, before its derivative is taken; `None` for one without layers.
        platform: where it runs, JAX's default if not given.
        training: whether the program is a step, which may also run in a loop over many of them.

    Raises:
        ValueError: if `FLUXAX_XLA` is not written like that.
        RuntimeError: if this JAX lacks what nothing works without (`_jax_parts`).

    Example:
        >>> options_for(None, "gpu") is None
        True
    """
    look()
    own = os.environ.get("FLUXAX_XLA")
    if own is not None:
        return _parsed(own) or None
    if jaxpr is None or (platform or jax.default_backend()) != "cpu" or not holds("options"):
        return None
    _memory.keep_once()
    loops = may_loop(jaxpr)
    passes = [BARRIERS] if chosen() and not loops else []
    passes += [SMALL_LOOPS] if training and (not loops or _since(_SMALL_BY_WORK)) else []
    options: dict[str, Any] = {DISABLED: ",".join(passes)} if passes else {}
    if _since(_FIRST_WITH_YNNPACK) and has(jaxpr, "conv_general_dilated"):
        options[YNNPACK] = ""
    if not _on_disk():
        options[PIECES] = max(PIECE, _largest(jaxpr))
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags} or None


def not_taken(error: Exception) -> bool:
    """Whether XLA could not compile a program because a barrier stands where it can't have one."""
    return "opt-barrier" in str(error)


def _largest(jaxpr: Any, times: int = 1) -> int:
    """Bytes of the largest array in a program; loops may keep one of every turn."""
    found = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [_largest(program, times * turns(eqn)) for program in inside(eqn)]
        here = [times * _bytes(v.aval) for v in eqn.outvars]
        found = max([found, *inner, *here])
    return found


def _bytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize if hasattr(aval, "dtype") else 0


def _on_disk() -> bool:
    """Whether JAX keeps programs on disk, which it can only where their memory is one block."""
    wanted = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    return all(getattr(jax.config, name, None) for name in wanted)


def _since(first: tuple[int, int], version: str = jaxlib_version.__version__) -> bool:
    """Whether jaxlib is of that version or newer."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= first


def _taken() -> bool:
    """Whether XLA takes the options, which only a compiler for a CPU has."""
    options: dict[str, Any] = {DISABLED: f"{BARRIERS},{SMALL_LOOPS}", PIECES: PIECE, YNNPACK: ""}
    if jax.default_backend() == "cpu":
        jax.jit(lambda x: x + 1).lower(np.float32(0)).compile(options)
    return True


PARTS.append(
    Part("options", "XLA's options for a program", "fast programs", "slower ones", LESS, _taken)
)

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
