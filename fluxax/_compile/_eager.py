"""The uncompiled path: what cannot be compiled still works, each side effect once.

The user's own function runs, on copies of the arguments in which the arrays to
differentiate are JAX's eager tracers; what it wrote to them goes to the originals
afterwards, and tracers that it stored in things it reaches become their values.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._dispatch import no_leaks
from fluxax._compile._effects import ArrayWrite
from fluxax._compile._explain import switches, take_pending
from fluxax._compile._jaxpr import reaches
from fluxax._compile._objective import check_loss, loss_array, objective
from fluxax._compile._reach import replace_reached
from fluxax._compile._reads import is_user_class, place_of
from fluxax._compile._stand_in import Statistics, jax_arrays, stand_ins
from fluxax._errors import no_numbers
from fluxax._implicit._params import Live
from fluxax._jax import Tracer, concrete, is_tracer, showing, tracing
from fluxax._module import Module
from fluxax._parameters import trainable_arrays


class _Copies:
    """Copies of the arguments with other arrays in them, and what was written to the copies."""

    def __init__(self, stand_ins: dict[int, Any], reals: dict[tuple[int, _tree.Path], Any]):
        self.stand_ins, self.reals = stand_ins, reals
        self._made: dict[int, Any] = {}
        self._pairs: list[tuple[Any, Any, list[Any]]] = []

    def make(self, value: Any, argument: int, path: _tree.Path = ()) -> Any:
        if (argument, path) in self.reals:
            return self.reals[argument, path]
        if _tree.is_array(value):
            found = self.stand_ins.get(id(value))
            if found is not None:
                return found
            plain = isinstance(value, np.ndarray) and not no_numbers(value)
            return jnp.asarray(value) if plain else value
        kind = _tree.kind_of(value)
        if kind is None:
            return value
        if id(value) in self._made:
            return self._made[id(value)]
        pairs = kind.parts(value)
        new = kind.rebuild(value, [self.make(part, argument, (*path, key)) for key, part in pairs])
        self._made[id(value)] = new
        self._pairs.append((value, new, _snapshot(new)))
        return new

    def of(self, originals: frozenset[int]) -> frozenset[int]:
        """Ids of the copies of containers given by id."""
        return frozenset(id(self._made[i]) for i in originals if i in self._made)

    def write_back(self, good: bool) -> None:
        """Put what changed in the copies into the originals; statistics only if it was `good`."""
        originals = {id(new): old for old, new, _ in self._pairs}
        for old, new, before in self._pairs:
            now = _snapshot(new)
            if len(now) == len(before) and all(
                a[1] is b[1] for a, b in zip(now, before, strict=True)
            ):
                continue
            if isinstance(old, list):
                list.__setitem__(old, slice(None), [_settled(v, originals) for _, v in now])
            elif isinstance(old, (dict, Module)) or hasattr(old, "__dict__"):
                _update(old, before, now, originals, good)


def _update(
    old: Any, before: list[Any], now: list[Any], originals: dict[int, Any], good: bool
) -> None:
    target = old if isinstance(old, dict) else old.__dict__
    was = dict(before)
    for key, value in now:
        held = not good and _tree.is_array(value) and _tree.is_inexact(value) and key in target
        if was.get(key, _NOTHING) is not value and not held:
            target[key] = _settled(value, originals)
    for key in set(was) - {k for k, _ in now}:
        del target[key]


_NOTHING: Any = object()


def _snapshot(container: Any) -> list[tuple[Any, Any]]:
    return [(_tree.key_name(k), v) for k, v in _tree.parts(container)]


def _settled(value: Any, originals: dict[int, Any]) -> Any:
    """A value with no tracer and no copy of ours in it."""
    if id(value) in originals:
        return originals[id(value)]
    if is_tracer(value):
        return concrete(value)
    kind = _tree.kind_of(value)
    if kind is None or not any(is_tracer(v) for _, v in _tree.walk(value)):
        return value
    return kind.rebuild(value, [_settled(v, originals) for _, v in kind.parts(value)])


def _tracers(value: Any) -> list[Any]:
    return [value] if is_tracer(value) else [v for _, v in _tree.walk(value) if is_tracer(v)]


class Guard(NamedTuple):
    """A training step asks that nothing is kept unless all is finite, and has frozen parts."""

    frozen: frozenset[int] = frozenset()  # ids of the Modules below frozen nodes


class Variables:
    """What an uncompiled gradient is taken by: trainable arrays, once each, and real numbers."""

    def __init__(self, args: tuple[Any, ...], differentiated: tuple[bool, ...]):
        self.arrays: dict[int, Any] = {}
        self.numbers: dict[tuple[int, _tree.Path], Any] = {}
        for i, (arg, wanted) in enumerate(zip(args, differentiated, strict=True)):
            if not wanted:
                continue
            self.arrays.update((id(a), a) for _, a in trainable_arrays(arg))
            self.numbers.update(((i, path), x) for path, x in _reals(arg))

    def leaves(self, ints: bool) -> list[Any]:
        numbers = [x for key, x in self.numbers.items() if ints or not isinstance(x, int)]
        return [jnp.asarray(a) for a in self.arrays.values()] + [
            jnp.asarray(float(x)) for x in numbers
        ]

    def copies(self, leaves: list[Any], ints: bool) -> _Copies:
        n = len(self.arrays)
        keys = [key for key, x in self.numbers.items() if ints or not isinstance(x, int)]
        return _Copies(
            dict(zip(self.arrays, leaves[:n], strict=True)),
            dict(zip(keys, leaves[n:], strict=True)),
        )

    def nested(self, args: tuple[Any, ...], grads: list[Any], ints: bool) -> list[Any]:
        """The gradients in the shape of the arguments; a tied array's at its first place."""
        n = len(self.arrays)
        by_array = dict(zip(self.arrays, grads[:n], strict=True))
        keys = [key for key, x in self.numbers.items() if ints or not isinstance(x, int)]
        by_place = dict(zip(keys, grads[n:], strict=True))
        return [
            _tree.mirror(arg, lambda p, v, i=i: _pop(by_array, by_place, i, p, v))
            for i, arg in enumerate(args)
        ]


def _pop(by_array: dict[int, Any], by_place: dict[Any, Any], i: int, path: Any, value: Any) -> Any:
    return by_place.get((i, path)) if not _tree.is_array(value) else by_array.pop(id(value), None)


def _reals(arg: Any, path: _tree.Path = ()) -> Iterator[tuple[_tree.Path, Any]]:
    """Floats in plain containers, and a top-level int."""
    if isinstance(arg, (float, np.floating)) or (path == () and type(arg) is int):
        yield path, arg
    elif isinstance(arg, (list, tuple, dict)):
        for key, part in _tree.parts(arg):
            yield from _reals(part, (*path, key))


def value_and_gradients(
    f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...], guard: Guard | None = None
) -> tuple[Any, list[Any]]:
    """The value of `f(*args)` and its gradients, nested, uncompiled.

    Statistics that layers write are kept if the value is finite; with a guard, the gradients too.
    """
    note = take_pending()
    variables = Variables(args, differentiated)
    known, switches.ints = switches.ints, None
    if known is not None:  # a trace has shown which ints are needed as integers
        for place in [(i, ()) for i, real in known.items() if not real]:
            variables.numbers.pop(place, None)
    has_ints = known is None and any(isinstance(x, int) for x in variables.numbers.values())
    try:
        found = _differentiate(f, args, variables, ints=True, guard=guard)
    except TypeError:
        if not has_ints:
            raise
        found = _differentiate(f, args, variables, ints=False, guard=guard)  # needed as an integer
    note()
    return found


def _differentiate(
    f: Any, args: tuple[Any, ...], variables: Variables, *, ints: bool, guard: Guard | None
) -> tuple[Any, list[Any]]:
    leaves = variables.leaves(ints)
    reads = _reads_parameters(args)
    reached = (f, [p.owner() for p in args[0].order] if reads else _user_objects(args))
    before = Statistics(reached)
    kept: dict[str, Any] = {}

    def of_leaves(leaves: list[Any]) -> Any:
        copies = kept["copies"] = variables.copies(leaves, ints)
        made = [copies.make(a, i) for i, a in enumerate(args)]
        with objective(True, copies.of(guard.frozen if guard else frozenset())):
            out = kept["out"] = _call(f, args, made)
        loss = loss_array(out)
        check_loss(loss, _where(f))
        kept["traced"] = _tracers(out)
        return loss, kept["traced"]

    try:
        with no_leaks(), values_shown(), as_jax(reached, variables.arrays):
            loss, pull, values = jax.vjp(of_leaves, leaves, has_aux=True)
    finally:
        settle_reached(reached)
    one = jnp.ones((), loss.dtype)
    closed = jax.make_jaxpr(lambda ct: pull(ct)[0])(one)
    paths = reaches(closed.jaxpr)
    grads = [g if there else None for g, there in zip(pull(one)[0], paths, strict=True)]
    grads = [jnp.conj(g) if g is not None and jnp.iscomplexobj(g) else g for g in grads]
    good = all_finite([loss] if guard is None else [loss, *grads])
    kept["copies"].write_back(good)
    if not good:
        before.put_back()
    known = {id(t): v for t, v in zip(kept["traced"], values, strict=True)}
    return _settled(kept["out"], known), variables.nested(args, grads, ints)


def _user_objects(args: tuple[Any, ...]) -> list[Any]:
    """Classes of what is passed, whose methods may reach more, and objects that are not copied."""
    nodes = [v for _, v in _tree.walk_nodes(args) if not _tree.is_array(v)]
    objects = [v for v in nodes if _tree.kind_of(v) is None and is_user_class(type(v))]
    return [*{type(v) for v in nodes if _tree.kind_of(v) is not None}, *objects]


def _reads_parameters(args: tuple[Any, ...]) -> bool:
    """Whether the first argument are parameters that the function reads from outside itself."""
    return bool(args) and isinstance(args[0], Live)


def _call(f: Any, args: tuple[Any, ...], made: list[Any]) -> Any:
    if not _reads_parameters(args):
        return f(*made)
    with stand_ins(args[0], made[0], f):
        return f(*made[1:])


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
    given = [jnp.asarray(a) if type(a) is np.ndarray and not no_numbers(a) else a for a in args]
    with objective(training), as_jax([f, _user_objects(args)], ()):
        value = f(*given)
    note()
    return value


# --- tracers that were stored -------------------------------------------------------------


def settle_reached(f: Any) -> list[np.ndarray]:
    """Replace tracers in what a function reaches by their values, in place.

    Returns:
        The NumPy arrays that it reaches.
    """
    found = replace_reached(f, lambda v: _settled(v, {}) if _carries(v) else v)
    return [v for v in found if type(v) is np.ndarray]


def _carries(value: Any) -> bool:
    return isinstance(value, Tracer) or (
        isinstance(value, (tuple, dict)) and any(is_tracer(v) for _, v in _tree.walk(value))
    )


@contextmanager
def as_jax(f: Any, kept: Container[int]) -> Iterator[None]:
    """A context in which a function sees NumPy arrays as JAX arrays; those that stay are read-only.

    Args:
        f: the function, and all it gets from which it reaches arrays.
        kept: ids of arrays that stay NumPy arrays.
    """
    arrays = settle_reached(f)
    locked = [a for a in arrays if a.flags.writeable]
    for array in locked:
        array.flags.writeable = False
    try:
        # inside another JAX transformation all that is done to a JAX array is traced
        with jax_arrays(f, [] if tracing() else arrays, kept):
            yield
    except (ValueError, TypeError) as error:
        if "read-only" in str(error) or "JAX arrays are immutable" in str(error):
            raise ArrayWrite(
                "The objective expects to leave NumPy arrays as they are, got a write to one"
                f"{place_of(error)}. Inside an objective they are JAX arrays: use x.at[i].set(v)."
            ) from error
        raise
    finally:
        for array in locked:
            array.flags.writeable = True
