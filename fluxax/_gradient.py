"""Gradients of ordinary functions, nested like their arguments."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fluxax import _tree
from fluxax._compile import _beside as _beside  # for checks
from fluxax._compile import _eager
from fluxax._compile._dispatch import ShapeMiss, jitted, looked_at, watching
from fluxax._compile._nest import nested
from fluxax._compile._program import find, find_slowly
from fluxax._compile._site import Found, Purpose
from fluxax._compile._traced import Program
from fluxax._draws import Turn
from fluxax._errors import warn
from fluxax._implicit._grads import Grads
from fluxax._implicit._params import Live, Params
from fluxax._implicit._styles import check_gradient
from fluxax._jax import alias
from fluxax._module import Module
from fluxax.kernels import options_for


class ValueAndGradient(NamedTuple):
    """What `withgradient` returns: the value of the function, and its gradients."""

    val: Any
    grad: Any


def gradient(f: Any, *args: Any) -> Any:
    """The gradients of a function by each of its arguments.

    `f(*args)` must be a real scalar. A gradient is nested like its argument: a Module gives a
    `Node` with the same attribute names. `None` stands where there is no path to the result.
    An array that is passed as two arguments has a derivative by each; in two places of a model
    it is tied, and the sum of both stands at the first.

    Args:
        f: any Python callable; it is compiled at its first call and the program is used again,
            also if `f` is another object each time.
        args: arrays, numbers, models, or any nested data; or one `Params`, and then `f()` reads
            the parameters itself.

    Returns:
        A tuple with one entry per argument, also for a single one: `gradient(f, model)[0]`. For
        `Params`: their `Grads`.

    Raises:
        ValueError: if the result is not a real scalar.
        TypeError: if the call mixes the two styles.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.gradient(lambda x, y: jnp.sum(x * y), jnp.array([1.0, 2.0]), 3.0)
        (Array([3., 3.], dtype=float32), Array(3., dtype=float32, weak_type=True))
    """
    return withgradient(f, *args).grad


def withgradient(f: Any, *args: Any) -> ValueAndGradient:
    """The value of a function and its gradients, `(val, grad)`; see `gradient`.

    The function may return a tuple, a named tuple or a dict whose first element is the loss:
    `val` is then all of it, the gradient is of the first.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> val, grads = fx.withgradient(lambda x: jnp.sum(x**2), jnp.array([1.0, 2.0]))
        >>> float(val), grads[0]
        (5.0, Array([2., 4.], dtype=float32))
    """
    if not args or type(args[0]) is Params:
        return _by_params(f, args)
    if len(args) > 1:
        args = _apart(args)
    purpose = _purposes[len(args)] if len(args) < len(_purposes) else _purpose(len(args))
    found = find(f, args, purpose)
    ran = None if found is None else run(found, f, args, purpose)
    if ran is None:
        check_gradient(f, args)
        value, grads = _eager.value_and_gradients(f, args, purpose.differentiated)
        return ValueAndGradient(value, tuple(grads))
    outs, found = ran
    program = found.program
    n, used = program.n_outputs, program.used
    flat = outs[n : n + len(used)]
    if len(args) == 1:
        grads = (_gradient_of(program, 0, args[0], flat),)
    else:
        grads = tuple([_gradient_of(program, i, arg, flat) for i, arg in enumerate(args)])
    if len(used) < program.n_leaves:
        _warn_if_nothing(program, args, grads, found.site.record.where)
    return ValueAndGradient(found.value(outs), grads)


def _by_params(f: Any, args: tuple[Any, ...]) -> ValueAndGradient:
    """The implicit style: `f()` reads the parameters itself."""
    check_gradient(f, args)
    live = args[0].live()
    if not live:
        warn(
            "gradient found no parameters in these Params: there is nothing to differentiate by. "
            "Their model has none that are trained, or it is gone; keep it alive."
        )
    value, (grads,) = withgradient(f, live)
    return ValueAndGradient(value, grads if type(grads) is Grads else Grads(live, grads))


def _apart(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of which no two are one array: `f(x, x)` has a derivative by each of them."""
    seen = set(map(id, args))
    if len(seen) == len(args):
        return args
    apart = []
    for arg in args:
        again = id(arg) not in seen and _tree.is_array(arg)
        apart.append(alias(arg) if again else arg)
        seen.discard(id(arg))
    return tuple(apart)


def _purpose(n: int) -> Purpose:
    return Purpose("gradient", (True,) * n)


_purposes = [_purpose(n) for n in range(8)]


def run(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose
) -> tuple[list[Any], Found] | None:
    """Run a gradient program and put the states that layers wrote into place.

    Returns:
        What came out, and of which program; `None` if the call must run uncompiled after all: only
        JAX sees that an array inside a model has another shape, and what then holds.
    """
    program = found.program
    try:
        if program.draws or program.call is None or watching():
            outs = _carefully(found)
        else:
            outs = program.call(*found.got[0])
    except ShapeMiss:
        again = find_slowly(found.site, f, args, purpose)
        if again is None or again.program is program:
            return None
        return run(again, f, args, purpose)
    if program.writes:
        first = program.n_outputs + len(program.used)
        for owner, write, state in zip(found.got[1], program.writes, outs[first:], strict=True):
            owner[write.name] = state
    return outs, found


def _carefully(found: Found) -> Any:
    """Run a program that draws, that is new, or at whose results JAX is to look."""
    program, inputs = found.program, found.got[0]
    if not program.draws:
        return _call(found, inputs)
    with Turn(program.draws) as turn:
        return turn.over(_call(found, [*inputs, turn.root]))


def _call(found: Found, inputs: list[Any]) -> Any:
    call = found.program.call
    if call is None:
        return _first_call(found, inputs)
    return (looked_at(call) if watching() else call)(*inputs)


def _first_call(found: Found, inputs: list[Any]) -> Any:
    """Compile, and run once."""
    program, start = found.program, time.perf_counter()
    call = jitted(_graded(program), "gradient", options=options_for(program.closed))
    outs = call(*inputs)
    program.call = call
    found.site.record.seconds += time.perf_counter() - start
    return outs


def _graded(program: Program) -> Any:
    def graded(*inputs: Any) -> list[Any]:
        outs, grads = program.value_and_grads(inputs, program.used)
        states = program.held(jnp.isfinite(outs[0]), inputs, outs)
        return [*outs[: program.n_outputs], *grads, *states]

    return graded


class FlatGradient:
    """The gradient of a Module before anybody looked: the program's own list of arrays."""

    __slots__ = ("flat", "nest", "program")

    def __init__(self, program: Program, nest: Any, flat: list[Any]):
        self.program, self.nest, self.flat = program, nest, flat

    def __call__(self) -> dict[str, Any]:
        grads = dict(zip(self.program.used, self.flat, strict=True))
        return vars(nested(self.nest, grads))


def _gradient_of(program: Program, i: int, arg: Any, flat: list[Any]) -> Any:
    nest = program.nests[i]
    if isinstance(arg, Module):
        return _tree.Node.lazy(FlatGradient(program, nest, flat))
    grads = nested(nest, dict(zip(program.used, flat, strict=True)))
    return Grads(arg, grads, program.alone) if type(arg) is Live else grads


_warned: set[str] = set()


def _warn_if_nothing(
    program: Program, args: tuple[Any, ...], grads: tuple[Any, ...], where: str
) -> None:
    """Say once that the loss does not depend on a model: the outer one was used, most likely."""
    for arg, grad in zip(args, grads, strict=True):
        given = isinstance(arg, (Module, Live))
        arrays = grad.grads if isinstance(grad, Grads) else grad
        if given and where not in _warned and not jax.tree.leaves(arrays):
            warn_untouched(where, arg)


def warn_untouched(where: str, model: Any) -> None:
    """Say once that the loss at a place does not depend on what it is differentiated by."""
    if where in _warned:
        return
    _warned.add(where)
    if isinstance(model, Live):
        warn(
            f"The loss at {where} does not touch the parameters in these Params, so the gradients "
            "are None. Let it call the very model that fx.params was given."
        )
        return
    warn(
        f"The loss at {where} does not depend on the model that was given to it, so the "
        "gradient is None. Use the function's own argument inside it: lambda m: loss(m(x), y)."
    )
