"""`python -m fluxax`: what a bug report should say, on one screen."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import jax
import jax.numpy as jnp

from fluxax import _jax
from fluxax._jax_parts import PARTS, all_failures
from fluxax.kernels import chosen, options_for
from fluxax.kernels._memory import wanted
from fluxax.kernels._options import WHY

_BESIDE = ("jaxlib", "numpy", "optax", "equinox")

#: Programs that the rule for XLA's options tells apart.
_EXAMPLES = {
    "a step": lambda x: x + 1,
    "a step with a convolution": lambda x: jnp.convolve(x, x),
    "a step with a loop": lambda x: jax.lax.while_loop(lambda v: v[0] < 1, lambda v: v + 1, x),
}


def report() -> Iterator[str]:
    """The lines of the screen."""
    mine = sys.modules["fluxax"].__version__
    yield f"fluxax {mine}, Python {platform.python_version()}, {platform.platform()}"
    tried = "" if _jax.was_tried() else "NOT "
    yield f"JAX {jax.__version__}, {tried}one that was tried ({_jax.tried_versions()})"
    yield ", ".join(f"{name} {_version(name)}" for name in _BESIDE)
    devices = jax.devices()
    yield f"devices: {len(devices)} of {jax.default_backend()} ({devices[0].device_kind})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"threads: {cores} cores for this process, of {os.cpu_count()}"
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(_OURS)]
    yield f"environment: {' '.join(variables) or 'nothing set'}"
    bits = "64" if getattr(jax.config, "jax_enable_x64", False) else "32"
    yield f"numbers: {bits} bits; kernels: {'own' if chosen() else 'plain formulas'}"
    yield f"memory: {'kept' if wanted(os.environ) else 'not kept'} between calls, on a CPU"
    yield f"compilation cache: {getattr(jax.config, 'jax_compilation_cache_dir', None) or 'none'}"
    yield from _options()
    yield from _parts()


_OURS = ("FLUXAX_", "JAX_", "XLA_", "MALLOC_", "OMP_", "CUDA_VISIBLE_DEVICES", "NPROC")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _options() -> Iterator[str]:
    yield "XLA options:"
    why: dict[str, str] = {}
    for name, function in _EXAMPLES.items():
        found = options_for(jax.make_jaxpr(function)(jnp.ones(3)), training=True) or {}
        yield f"  {name}: {' '.join(f'{k}={v}' for k, v in found.items()) or 'none'}"
        why |= {k: WHY.get(k, "FLUXAX_XLA says so") for k in found}
    yield from (f"  {option}: {reason}" for option, reason in why.items())


def _parts() -> Iterator[str]:
    yield "private parts of JAX:"
    failures = all_failures()
    for part in PARTS:
        wrong = failures.get(part.name)
        state = "holds" if wrong is None else f"DOES NOT HOLD ({wrong}); {part.without}"
        yield f"  {part.name}: {state}. {part.what}, for {part.needs}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(report()) + "\n")
