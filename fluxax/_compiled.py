"""The engine without a gradient: evaluation, in test mode."""

from __future__ import annotations

import functools
from typing import Any

from fluxax._compile import _eager
from fluxax._compile._dispatch import ShapeMiss, looked_at, watching
from fluxax._compile._program import find, find_slowly
from fluxax._compile._site import Purpose
from fluxax._draws import Turn
from fluxax._errors import short


class Compiled:
    """What `compiled` returns: call it like the function."""

    def __init__(self, function: Any):
        if not callable(function):
            raise TypeError(f"compiled expects a function, got {short(function)}.")
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return _call(functools.partial(self.function, **kwargs), args)
        return _call(self.function, args)

    def __repr__(self) -> str:
        return f"compiled({self.function!r})"


def compiled(f: Any) -> Compiled:
    """A function that runs compiled, in test mode, and sees every change of what it reads.

    The same engine as `gradient`: the function is any callable, made anew as often as you like;
    arrays it reads from outside are inputs of the program.

    Args:
        f: any callable.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model, x = fx.Dense(2, 3, init=fx.ones32), jnp.ones((4, 2))
        >>> fx.compiled(lambda: jnp.mean(model(x)))()
        Array(2., dtype=float32)
    """
    return Compiled(f)


def _call(f: Any, args: tuple[Any, ...]) -> Any:
    purpose = Purpose("value", (False,) * len(args))
    found = find(f, args, purpose)
    while found is not None:
        program = found.program
        try:
            call = program.call or program.compile_run()
            call = looked_at(call) if watching() else call
            if program.draws:
                with Turn(program.draws) as turn:
                    outs = turn.over(call(*found.got[0], turn.root))
            else:
                outs = call(*found.got[0])
        except ShapeMiss:
            found = find_slowly(found.site, f, args, purpose)
            if found is not None and found.program is program:
                break
            continue
        for owner, write, state in zip(
            found.got[1], program.writes, outs[program.n_outputs :], strict=True
        ):
            owner[write.name] = state
        return found.value(outs)
    with _eager.values_shown():
        return _eager.call(f, args, training=False)
