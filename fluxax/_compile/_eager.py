"""The uncompiled path: what cannot be compiled still works, each side effect once.

The user's own function runs, once, on copies of the arguments in which the arrays to
differentiate are JAX's eager tracers; what it wrote to them goes to the originals afterwards, also
if it raised, and tracers that it stored anywhere become their values.
"""

from __future__ import annotations

import dis
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._copies import Copies, Spot
from fluxax._compile._dispatch import no_leaks
from fluxax._compile._effects import ArrayWrite
from fluxax._compile._explain import switches, take_pending
from fluxax._compile._jaxpr import reaches
from fluxax._compile._left_behind import settle_copies, settle_leftovers, settle_modules
from fluxax._compile._objective import check_loss, first_of, loss_array, objective
from fluxax._compile._program import find
from fluxax._compile._reach import Swap, replace_reached
from fluxax._compile._reads import is_user_class, place_of
from fluxax._compile._site import Purpose
from fluxax._compile._stand_in import Statistics, jax_arrays, stand_ins
from fluxax._compile._whole import Use, use_of
from fluxax._implicit._params import Live
from fluxax._jax import (
    concrete,
    current_trace,
    detached,
    is_tracer,
    showing,
    traces_around,
    tracing,
)
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
    if isinstance(arg, (float, np.floating)) or (type(arg) is int and not whole):
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
            if isinstance(part, (float, np.floating)):
                yield (id(owner), _spot(owner, key)), ((i, (*path, key)), part)
            else:
                below.append((part, (*path, key)))
        stack += reversed(below)


def _spot(owner: Any, key: Any) -> Any:
    name = _tree.key_name(key)
    return owner._fields.index(name) if isinstance(key, jax.tree_util.GetAttrKey) else name


def _passed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as nested data: of parameters that the function reads itself, their arrays."""
    return (list(args[0]), *args[1:]) if _reads_parameters(args) else args


def value_and_gradients(
    f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...], guard: Guard | None = None
) -> tuple[Any, list[Any]]:
    """The value of `f(*args)` and its gradients, nested, uncompiled.

    Statistics that layers write are kept if the value is finite; with a guard, the gradients too.
    """
    note = take_pending()
    known, switches.ints = switches.ints, None
    whole = _whole_numbers(f, args, differentiated, known)
    variables = Variables(args, differentiated, whole)
    found = _differentiate(f, args, variables, guard)
    note()
    return found


def _differentiate(
    f: Any, args: tuple[Any, ...], variables: Variables, guard: Guard | None
) -> tuple[Any, list[Any]]:
    run = _Run(f, args, variables.arrays)
    traced: list[Any] = []

    def of_leaves(leaves: list[Any]) -> Any:
        run.copies = variables.copies(leaves)
        with objective(True, run.copies.of(guard.frozen if guard else frozenset())):
            out = run.call()
        loss = loss_array(out)
        check_loss(loss, _where(f))
        traced.extend(run.tracers())
        return loss, traced

    with run:
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


class _Run:
    """One run of the user's function, and what has to be put right after it, whatever happened.

    Args:
        f: the function.
        args: what the user passed.
        kept: ids of arrays that are not replaced where the function reads them itself.
    """

    def __init__(self, f: Any, args: tuple[Any, ...], kept: dict[int, Any]):
        self.f, self.args = f, args
        owners = [p.owner() for p in args[0].order] if _reads_parameters(args) else []
        # inside another JAX transformation all that is done to a JAX array is traced
        self.arrays = jax_arrays(f, owners or _user_objects(args), kept, none=tracing())
        self.function: Any = f
        self.statistics = Statistics(self.arrays.reached)
        self.copies = Copies((), {}, {})
        self.out: Any = None
        self.good = False
        self._around = traces_around()
        self._trace: Any = None
        self._known: dict[int, Any] = {}

    def call(self) -> Any:
        """The function's result."""
        trace, made = current_trace(), self.copies.made
        if trace is not self._around[0]:
            self._trace = weakref.ref(trace)
        del trace
        if not _reads_parameters(self.args):
            self.out = self.function(*made)
        else:
            with stand_ins(self.args[0], made[0], self.function):
                self.out = self.function(*made[1:])
        return self.out

    def tracers(self) -> list[Any]:
        """The tracers in the result, and in what was made for it."""
        if is_tracer(self.out):
            return [self.out]
        return [v for v in replace_reached([self.out], lambda v: v) if is_tracer(v)]

    def settled(self, tracers: list[Any], values: list[Any]) -> None:
        """Let the result's tracers become their values; but what the caller passed stays that."""
        loss = first_of(self.out)
        self._known = {
            id(t): v
            for t, v in zip(tracers, values, strict=True)
            if t is loss or id(t) not in self.copies.back
        }

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        del kind, trace
        better = None if error is None else self._explained(error)
        back = {**self.arrays.back, **self.copies.back, **self._known}
        swap = Swap(back, lambda v: detached(v, self._around))
        self.copies.write_back(swap, self._held(error))
        if not self.good:
            self.statistics.put_back()
        replace_reached([self.f, self.args, self.copies.made, self.out, error, better], swap)
        settle_modules(swap)
        # what is left elsewhere is found once nothing of ours holds it
        copies, out = self.copies.taken(), swap(self.out)
        self.out = self.arrays = self.copies = self._known = None
        settle_copies(copies, Swap(back))
        self.out = out
        del swap, back
        settle_leftovers(self._trace, lambda v: detached(v, self._around))
        if better is not None:
            raise better from error

    def _held(self, error: BaseException | None) -> Callable[[Any], bool]:
        """Which arrays of layers stay: after an error all; statistics if the loss is bad."""
        if error is not None:
            return lambda array: True
        return _tree.is_inexact if not self.good else lambda array: False

    def _explained(self, error: BaseException) -> Exception | None:
        """What to raise for an error of JAX's or NumPy's that says that one of ours was written."""
        frame, step = _innermost(error)
        ours = {**self.arrays.back, **self.copies.back}
        if type(error) is TypeError and frame.f_code.co_name == "_unimplemented_setitem":
            found = [frame.f_locals.get("self")]
        elif type(error) is ValueError and "read-only" in str(error) and step != "RAISE_VARARGS":
            views = {id(v) for v in self.arrays.views}
            found = [v for v in frame.f_locals.values() if id(v) in views]
        else:
            return None
        if not any(isinstance(ours.get(id(v)), np.ndarray) for v in found):
            return None
        return ArrayWrite(
            "The objective expects to leave NumPy arrays as they are, got a write to one"
            f"{place_of(error)}. Inside an objective they are JAX arrays: use x.at[i].set(v)."
        )


def _innermost(error: BaseException) -> tuple[Any, str]:
    """The frame that an error comes from, and the instruction that raised it."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    ops = {op.offset: op.opname for op in dis.get_instructions(trace.tb_frame.f_code)}
    return trace.tb_frame, ops.get(trace.tb_lasti, "")


def _user_objects(args: tuple[Any, ...]) -> list[Any]:
    """Classes of what is passed, whose methods may reach more, and objects that are not copied."""
    found: dict[int, Any] = {}
    stack, seen = list(args), set()
    while stack:
        value = stack.pop()
        if _tree.is_array(value) or id(value) in seen:
            continue
        seen.add(id(value))
        kind = _tree.kind_of(value)
        if kind is not None:
            found[id(type(value))] = type(value)
            stack += [part for _, part in kind.parts(value)]
        elif is_user_class(type(value)):
            found[id(value)] = value
    return list(found.values())


def _reads_parameters(args: tuple[Any, ...]) -> bool:
    """Whether the first argument are parameters that the function reads from outside itself."""
    return bool(args) and isinstance(args[0], Live)


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
    run = _Run(f, args, {})
    with run:
        run.copies = Copies(args, {}, {})
        with objective(training), run.arrays as run.function:
            run.call()
        run.good = True
    note()
    return run.out


# --- integers -----------------------------------------------------------------------------


def _whole_numbers(
    f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...], known: dict[int, bool] | None
) -> frozenset[int]:
    """Which arguments are ints that the function needs as integers; it is not run for that."""
    ints = [i for i, arg in enumerate(args) if differentiated[i] and type(arg) is int]
    uses = {i: use_of(f, i) for i in ints}
    if any(use is Use.OTHER for use in uses.values()) and not known and not tracing():
        known = _tried(f, args)
    return frozenset(
        i
        for i, use in uses.items()
        if use is Use.WHOLE or (use is Use.OTHER and not (known or {}).get(i, known is not None))
    )


def _tried(f: Any, args: tuple[Any, ...]) -> dict[int, bool]:
    """Which ints a trace, on copies of everything, found to be real numbers."""
    before = switches.eager, switches.strict
    switches.eager = switches.strict = False
    try:
        found = find(f, args, Purpose("gradient", (True,) * len(args)))
        return (found.site.ints if found is not None else switches.ints) or {}
    except Exception:  # it will come again where it counts
        return {}
    finally:
        switches.eager, switches.strict = before
        switches.pending = switches.ints = None
