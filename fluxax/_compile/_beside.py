"""The numbers of a program beside those of an uncompiled run: what `FLUXAX_CHECK=all` asks for.

A trace made anew shows stale values. Wrong copies and lost effects are the same in every trace;
they show where the user's own function runs on the user's own objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile import _check, _eager
from fluxax._compile._content import remembers
from fluxax._compile._explain import switches
from fluxax._compile._nest import nested
from fluxax._compile._site import Found, Purpose
from fluxax._compile._spec import NOTHING
from fluxax._compile._trace import Frozen
from fluxax._draws import NO_ROOT, drawing_from
from fluxax._jax import is_key

#: Relative errors that another order of the same operations may make, of an array's norm and of
#: the norm of all.
_ERRORS = {"float64": 1e-9, "complex128": 1e-9, "float16": 3e-2, "bfloat16": 3e-2}
_ERROR, _OF_ALL = 1e-4, 1e-2


def differs(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> str | None:
    """What of a program's numbers is not that of an uncompiled run, if anything.

    Both run on what is there now. Neither leaves a layer's state changed: the call itself does.
    """
    program, got = found.program, found.got
    inputs = got[0] if program.parameters is None else program.merged(*got[:2])
    owners = got[1] if program.parameters is None else got[2]
    places = [(owner, write.name) for owner, write in zip(owners, program.writes, strict=True)]
    before = [owner.get(name, NOTHING) for owner, name in places]
    root = [NO_ROOT] if program.draws else []
    outs, grads = jax.jit(program.run_whole)([*inputs, *root])
    ours = [found.value(outs), _nested(found, grads), outs[program.n_outputs :]]
    if remembers(program.closed):  # uncompiled, JAX would run what it has compiled of the user's
        jax.clear_caches()
    try:
        with drawing_from(NO_ROOT):
            plain = _plain(found, f, args, purpose, frozen)
        states = [owner.get(name, NOTHING) for owner, name in places]
    finally:
        for (owner, name), state in zip(places, before, strict=True):
            if state is NOTHING:
                owner.pop(name, None)
            else:
                owner[name] = state
    for what, a, b in zip(_WHAT, ours, [*plain, states], strict=True):
        if not _close(a, b):
            return f"{what} is another than that of an uncompiled run"
    return None


_WHAT = ("the value", "a gradient", "the state of a layer")


def _nested(found: Found, grads: list[Any]) -> list[Any]:
    program = found.program
    by_input = dict(zip(program.used, grads, strict=True))
    return [nested(nest, by_input) for nest in program.nests]


def _plain(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> list[Any]:
    if purpose.name == "value":
        with _eager.values_shown():
            return [_eager.call(f, args, training=False), []]
    ints = found.program.known.ints
    switches.ints = {i: ints.get(i, True) for i in range(len(args))}
    guard = _eager.Guard(frozen()) if purpose.name == "step" else None
    return list(_eager.value_and_gradients(f, args, purpose.differentiated, guard))


def _close(a: Any, b: Any) -> bool:
    """Whether two nested results are one but for rounding; `None` counts as zeros."""
    xs, ys = [*_leaves(a)], [*_leaves(b)]
    if len(xs) != len(ys):
        return False
    pairs = [(_numbers(x, y), _numbers(y, x)) for x, y in zip(xs, ys, strict=True)]
    whole = np.sqrt(sum(_norm(y) ** 2 for _, y in pairs if y is not None))
    return all(_one(x, y, whole) for x, y in pairs)


def _leaves(value: Any) -> Iterator[Any]:
    """What nested data ends in, in its order; dicts in theirs; nothing but `None` is one `None`."""
    if isinstance(value, dict):
        parts = list(value.values())
    elif _tree.is_array(value) or not (parts := [part for _, part in _tree.parts(value)]):
        yield value
        return
    found = [leaf for part in parts for leaf in _leaves(part)]
    yield from found if any(leaf is not None for leaf in found) else (None,)


def _numbers(x: Any, like: Any) -> Any:
    """A leaf as a NumPy array, zeros for `None`; `None` if it is no array."""
    if x is None and isinstance(like, (jax.Array, np.ndarray)):
        return np.zeros(like.shape)
    if not isinstance(x, (jax.Array, np.ndarray, int, float, complex, np.generic)):
        return None
    x = jax.random.key_data(x) if isinstance(x, jax.Array) and is_key(x) else x
    return np.asarray(x)


def _norm(x: np.ndarray) -> float:
    known = x[np.isfinite(x)] if jnp.issubdtype(x.dtype, jnp.inexact) else x
    wide = np.asarray(known, np.complex128 if known.dtype.kind == "c" else np.float64)
    return float(np.linalg.norm(wide.ravel()))


def _one(x: Any, y: Any, whole: float) -> bool:
    if x is None or y is None:
        return x is None and y is None
    if x.shape != y.shape:
        return False
    if not (jnp.issubdtype(x.dtype, jnp.inexact) or jnp.issubdtype(y.dtype, jnp.inexact)):
        return bool((x == y).all())
    odd = ~np.isfinite(x) | ~np.isfinite(y)
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return False
    error = max(_ERRORS.get(str(v.dtype), _ERROR) for v in (x, y))
    return _norm(x[~odd] - y[~odd]) <= error * (_norm(y) + _OF_ALL * whole) + 1e-30


_check.setting.compare = differs
