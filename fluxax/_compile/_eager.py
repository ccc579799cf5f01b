"""The uncompiled path: what cannot be compiled still works, each side effect once.

The user's own function runs, once, on copies of the arguments in which the arrays to
differentiate are JAX's eager tracers; what it wrote to them goes to the originals afterwards, also
if it raised, and tracers that it stored anywhere become their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._copies import Copies, Spot
from fluxax._compile._dispatch import no_leaks
from fluxax._compile._explain import switches, take_pending
from fluxax._compile._jaxpr import reaches
from fluxax._compile._objective import check_loss, loss_array, objective
from fluxax._compile._reads import is_users_own, place_of
from fluxax._compile._run import Run, reads_parameters
from fluxax._compile._whole import whole_numbers
from fluxax._jax import concrete, showing, tracing, undisturbed
from fluxax._parameters import trainable_arrays


class Guard(NamedTuple):
    """A training step asks that nothing is kept unless all is finite, and has frozen parts."""

    frozen: frozenset[int] = frozenset()  # ids of the Modules below frozen nodes


class Variables:
    """What an uncompiled gradient is taken by: trainable arrays, once each, and real numbers.

    Args:
        args: the arguments.
        differentiated: whether each is differentiated.
        whole: which of the arguments are integers that the function needs as such.
    """

    def __init__(
        self, args: tuple[Any, ...], differentiated: tuple[bool, ...], whole: frozenset[int]
    ):
        self.args = args
        self.arrays: dict[int, Any] = {}
        self.numbers: dict[Spot, tuple[Any, Any]] = {}  # a number's place: its path, and itself
        for i, (arg, wanted) in enumerate(zip(args, differentiated, strict=True)):
            if wanted:
                self.arrays.update((id(a), a) for _, a in trainable_arrays(arg))
                self.numbers.update(_reals(i, arg, i in whole))

    def leaves(self) -> list[Any]:
        numbers = [jnp.asarray(float(x)) for _, x in self.numbers.values()]
        return [*map(jnp.asarray, self.arrays.values()), *numbers]

    def copies(self, leaves: list[Any]) -> Copies:
        n = len(self.arrays)
        return Copies(
            _passed(self.args),
            dict(zip(self.arrays, leaves[:n], strict=True)),
            dict(zip(self.numbers, leaves[n:], strict=True)),
        )

    def nested(self, grads: list[Any]) -> list[Any]:
        """The gradients in the shape of the arguments; a tied array's at its first place."""
        n = len(self.arrays)
        by_array = dict(zip(self.arrays, grads[:n], strict=True))
        paths = [path for path, _ in self.numbers.values()]
        by_path = dict(zip(paths, grads[n:], strict=True))
        return [
            _tree.mirror(arg, lambda p, v, i=i: _pop(by_array, by_path, i, p, v))
            for i, arg in enumerate(self.args)
        ]


def _pop(by_array: dict[int, Any], by_path: dict[Any, Any], i: int, path: Any, value: Any) -> Any:
    return by_path.get((i, path)) if not _tree.is_array(value) else by_array.pop(id(value), None)


def _reals(i: int, arg: Any, whole: bool) -> Iterator[tuple[Spot, tuple[Any, Any]]]:
    """Floats in plain containers, and a top-level int, by place."""
    if type(arg) is float or isinstance(arg, np.floating) or (type(arg) is int and not whole):
        yield (None, i), ((i, ()), arg)
    seen = set()
    stack = [(arg, ())]
    while stack:
        owner, path = stack.pop()
        if not isinstance(owner, (list, tuple, dict)) or id(owner) in seen:
            continue
        seen.add(id(owner))
        below = []
        for key, part in _tree.parts(owner):
            if type(part) is float or isinstance(part, np.floating):
                yield (id(owner), _spot(owner, key)), ((i, (*path, key)), part)
            else:
                below.append((part, (*path, key)))
        stack += reversed(below)


def _spot(owner: Any, key: Any) -> Any:
    name = _tree.key_name(key)
    return owner._fields.index(name) if isinstance(key, jax.tree_util.GetAttrKey) else name


def _passed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as nested data: of parameters that the function reads itself, their arrays."""
    return (list(args[0]), *args[1:]) if reads_parameters(args) else args


def value_and_gradients(
    f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...], guard: Guard | None = None
) -> tuple[Any, list[Any]]:
    """The value of `f(*args)` and its gradients, nested, uncompiled.

    Statistics that layers write are kept if the value is finite; with a guard, the gradients too.
    """
    note = take_pending()
    known, switches.ints = switches.ints, None
    whole, doubtful = whole_numbers(f, args, differentiated, known)
    try:
        found = _differentiate(f, args, Variables(args, differentiated, whole), guard)
    except TypeError as error:
        if not doubtful or is_users_own(error):
            raise
        variables = Variables(args, differentiated, whole | doubtful)
        found = _differentiate(f, args, variables, guard)
    note()
    return found


def _differentiate(
    f: Any, args: tuple[Any, ...], variables: Variables, guard: Guard | None
) -> tuple[Any, list[Any]]:
    run = Run(f, args, variables.arrays)
    traced: list[Any] = []

    def of_leaves(leaves: list[Any]) -> Any:
        run.copies = variables.copies(leaves)
        with objective(True, run.copies.of(guard.frozen if guard else frozenset())):
            out = run.call()
        loss = loss_array(out)
        check_loss(loss, _where(f))
        traced.extend(run.tracers())
        return loss, traced

    with undisturbed(), run:
        with no_leaks(), values_shown(), run.arrays as run.function:
            loss, pull, values = jax.vjp(of_leaves, variables.leaves(), has_aux=True)
        grads = _pulled(loss, pull)
        run.good = all_finite([loss] if guard is None else [loss, *grads])
        nested = variables.nested(grads)  # like the arguments as they came
        run.settled(traced, values)
        traced.clear()
    return run.out, nested


def _pulled(loss: Any, pull: Any) -> list[Any]:
    """The gradients; `None` where no path leads to the loss."""
    one = jnp.ones((), loss.dtype)
    closed = jax.make_jaxpr(lambda ct: pull(ct)[0])(one)
    paths = reaches(closed.jaxpr)
    grads = [g if there else None for g, there in zip(pull(one)[0], paths, strict=True)]
    return [jnp.conj(g) if g is not None and jnp.iscomplexobj(g) else g for g in grads]


def all_finite(values: list[Any]) -> bool:
    """Whether every number is finite; inside another transformation nobody can say, so yes."""
    found = [concrete(v) for v in values if v is not None]
    return tracing() or all(bool(jnp.isfinite(v).all()) for v in found)


class values_shown:
    """A context in which eager tracers answer with their values; NumPy conversion is explained."""

    def __enter__(self) -> None:
        self.before, showing.now = showing.now, True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        showing.now = self.before
        if isinstance(error, jax.errors.TracerArrayConversionError) and not tracing():
            raise TypeError(
                "The objective expects to stay in JAX, got a value that carries a derivative "
                f"turned into a NumPy array{place_of(error)}, which would cut the gradient. Use "
                "jnp instead of np, or fx.stop_gradient(x) first."
            ) from error


def _where(f: Any) -> str:
    code = getattr(f, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else type(f).__name__


def call(f: Any, args: tuple[Any, ...], *, training: bool) -> Any:
    """`f(*args)` uncompiled, without a gradient."""
    note = take_pending()
    run = Run(f, args, {})
    with undisturbed(), run:
        run.copies = Copies(args, {}, {})
        with objective(training), run.arrays as run.function:
            run.call()
        run.good = True
    note()
    return run.out
