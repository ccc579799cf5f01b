"""The rules of many leaves as one program: traced once, for all leaves together."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._module import static_key
from fluxax.optimisers._hold import LeafStep, shared_scalars
from fluxax.optimisers._hyper import Pack, pack_dtype, real_dtype
from fluxax.optimisers._rule import (
    array_view,
    fields_of,
    hyper_view,
    is_rule,
    room,
    rows_view,
    rules_in,
    schedules_in,
    static_view,
    timed,
    watched,
)
from fluxax.optimisers._state import Leaf, Slot

_VIEWS = ("hyper", "array", "static")
_views: dict[Any, str] = {}  # by the classes in a rule: how its numbers stand in a program


def _classes(rule: Any) -> tuple[type, ...]:
    return tuple(type(r) for r in rules_in(rule))


def settle_view(rule: Any, leaf: Leaf) -> None:
    """Find out, by an abstract trace, how a rule's numbers can stand in a program."""
    if _classes(rule) in _views:
        return
    x = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    vector = jax.ShapeDtypeStruct((size_for([rule]),), pack_dtype())
    count = jax.ShapeDtypeStruct((), np.int32)

    def attempt(vector: Any, state: Any, x: Any, count: Any) -> Any:
        return _apply_one(_now(rule, count, x), Pack(vector), 0, state, x, x)[1]

    jax.eval_shape(attempt, vector, leaf.abstract_state(), x, count)


def has_constants(rule: Any) -> bool:
    """Whether a rule's numbers are constants of its programs, because it branches on them."""
    return _views.get(_classes(rule)) == "static"


def signature(leaf: Leaf) -> Any:
    """What of a leaf a program depends on: everything but its numbers."""
    return (
        rule_signature(leaf.rule),
        leaf.structure,
        tuple(leaf.slots),
        leaf.shape,
        leaf.dtype,
        leaf.clock,
    )


def rule_signature(rule: Any) -> Any:
    """What of a rule a program depends on: its class, static fields and schedules."""
    return _rule_signature(rule, has_constants(rule))


def _rule_signature(rule: Any, fixed: bool) -> Any:
    static, names = getattr(rule, "static", ()), fields_of(rule)
    return (
        type(rule),
        tuple((n, _field_signature(getattr(rule, n), fixed or n in static)) for n in names),
    )


def _field_signature(value: Any, static: bool) -> Any:
    if is_rule(value):
        return _rule_signature(value, static)
    if isinstance(value, (tuple, list)):
        return tuple(_field_signature(v, static) for v in value)
    if (
        not static
        and isinstance(value, (int, float, np.generic))
        and not isinstance(value, (bool, np.bool_))
    ):
        return "number"
    return static_key(value)


class Numbers:
    """The hyperparameters of a program: where they lie in its vector, and the vector now."""

    def __init__(self, size: int):
        self.size = size
        self.pack: Pack | None = None

    def placeholder(self) -> Any:
        """A vector of the right size, for a trace."""
        return jax.ShapeDtypeStruct((self.size,), pack_dtype())

    def vector(self, rules: list[Any]) -> Any:
        """The vector for rules as they are; a trace must have come before."""
        assert self.pack is not None
        return jax.device_put(self.pack.values(rules))


class Template(NamedTuple):
    """What of a leaf is needed to trace its step."""

    rule: Any
    structure: Any  # of its state
    slots: list[Slot]
    shape: tuple[int, ...]
    clock: int  # which count says how many steps it has taken


def template(leaf: Leaf) -> Template:
    """What of a leaf is needed to trace its step."""
    return Template(leaf.rule, leaf.structure, list(leaf.slots), leaf.shape, leaf.clock)


def apply_rules(
    leaves: list[Template], numbers: Numbers, inputs: Inputs, xs: list[Any], grads: list[Any]
) -> tuple[list[Any], Any, list[Any]]:
    """New state arrays, step counts and parameters; to be traced. `xs`, `grads` are by leaf.

    In this order: JAX gives the memory of donated arrays to the first outputs of their shape.
    """
    step = _Step(leaves, inputs, xs, grads)
    together: dict[int, dict[int, int]] = {}
    alone = []
    for k, leaf in enumerate(leaves):
        block = next((s for s in leaf.slots if s.sort == "array" and s.row is not None), None)
        if block is None:
            alone.append(k)
        else:
            together.setdefault(block.i, {})[block.row or 0] = k
    step.alone(alone)
    for rows in together.values():
        step.in_rows(rows)
    numbers.pack = step.pack  # now that it is whole
    return step.new_arrays, step.counted(), step.new_xs


class Inputs(NamedTuple):
    """What a step takes beside parameters and gradients."""

    vector: Any  # hyperparameters
    arrays: list[Any]  # of the state
    counts: Any
    good: Any = None  # a flag that holds everything back where it is false


class _Step:
    """One trace of the rules of all leaves."""

    def __init__(self, leaves: list[Template], inputs: Inputs, xs: list[Any], grads: list[Any]):
        self.leaves, self.xs, self.grads = leaves, xs, grads
        self.arrays, self.counts, self.good = inputs.arrays, inputs.counts, inputs.good
        self.pack = Pack(inputs.vector)
        self.new_xs, self.new_arrays = list(xs), list(inputs.arrays)
        self.new_counts: dict[int, Any] = {}  # by position: a vector that starts there

    def alone(self, ks: list[int]) -> None:
        """The steps of leaves with arrays of their own; what is scalar in them, together."""
        groups: dict[Any, list[tuple[int, LeafStep]]] = {}
        for k in ks:
            step = self._trace(k)
            groups.setdefault(step.scalars.key, []).append((k, step))
        for group in groups.values():
            self._finish([k for k, _ in group], [step for _, step in group])

    def _trace(self, k: int) -> LeafStep:
        leaf, x = self.leaves[k], self.xs[k]
        rule = _now(leaf.rule, self.counts[leaf.clock], x)

        def apply(state: list[Any], x: Any, dx: Any) -> tuple[list[Any], Any]:
            whole = jax.tree.unflatten(leaf.structure, state)
            new, step = _apply_one(rule, self.pack, k, whole, x, dx)
            return leaf.structure.flatten_up_to(new), step

        old = [self.counts[s.i] if s.sort == "count" else self.arrays[s.i] for s in leaf.slots]
        return LeafStep(apply, old, x, self.grads[k], self.pack.vector)

    def _finish(self, ks: list[int], steps: list[LeafStep]) -> None:
        """Steps whose scalar parts are alike."""
        results, counted = steps[0].scalars.results, steps[0].scalars.counts
        at = [[self.leaves[k].slots[p].i for p in counted] for k in ks]
        shared = shared_scalars(steps, self.pack.vector, at, self.counts) if results else []
        for i, (k, step) in enumerate(zip(ks, steps, strict=True)):
            given = {v: values[i] for v, values in zip(step.scalars.results, shared, strict=True)}
            new, self.new_xs[k] = step.finish(given, self.good)
            for slot, value in zip(self.leaves[k].slots, new, strict=True):
                if slot.sort == "array":
                    self.new_arrays[slot.i] = value
                else:
                    self.new_counts[slot.i] = jnp.reshape(value, 1)
        for p, starts in zip(counted, zip(*at, strict=True), strict=True):
            self._join(list(starts), [step.jaxpr.outvars[p] for step in steps], results, shared)

    def _join(self, starts: list[int], outs: list[Any], results: list[Any], shared: Any) -> None:
        """Counts that lie next to each other, as the one vector that they were computed as."""
        if outs[0] in results and starts == list(range(starts[0], starts[0] + len(starts))):
            new, n = shared[results.index(outs[0])], len(starts)
            if self.good is not None:
                new = jnp.where(self.good, new, self.counts[starts[0] : starts[0] + n])
            for start in starts:
                del self.new_counts[start]
            self.new_counts[starts[0]] = new

    def in_rows(self, rows: dict[int, int]) -> None:
        """The step of leaves that share arrays; rows of leaves that take none stay as they are."""
        some = next(iter(rows.values()))
        first = self.leaves[some]
        n, width = self.arrays[next(s.i for s in first.slots if s.sort == "array")].shape
        x, dx = (self._block(rows, source, n, width) for source in (self.xs, self.grads))
        members = [rows.get(row, some) for row in range(n)]
        clocks = self.counts[np.array([self.leaves[k].clock for k in members])][:, None]
        view = rows_view(_now(first.rule, clocks, x), self.pack, members)

        def apply(state: list[Any], x: Any, dx: Any) -> tuple[list[Any], Any]:
            new, step = view.apply(jax.tree.unflatten(first.structure, state), x, dx)
            return first.structure.flatten_up_to(new), step

        slots = [
            s._replace(i=s.i - (s.row or 0) if s.sort == "count" else s.i) for s in first.slots
        ]
        old = [
            self.counts[s.i : s.i + n, None] if s.sort == "count" else self.arrays[s.i]
            for s in slots
        ]
        new, new_x = LeafStep(apply, old, x, dx, None).finish({}, self._moving(rows, n))
        for slot, value in zip(slots, new, strict=True):
            if slot.sort == "count":
                self.new_counts[slot.i] = value[:, 0]
            else:
                self.new_arrays[slot.i] = value
        for row, k in rows.items():
            shape = self.leaves[k].shape
            self.new_xs[k] = new_x[row, : math.prod(shape)].reshape(shape)

    def _moving(self, rows: dict[int, int], n: int) -> Any:
        """Which rows take the step: a column, a flag for all, or `None` for "all, always"."""
        if len(rows) == n:
            return self.good
        moves = np.array([[row in rows] for row in range(n)])
        return moves if self.good is None else moves & self.good

    def _block(self, rows: dict[int, int], source: list[Any], n: int, width: int) -> Any:
        """Leaves as the rows of one array, zeros behind them; nothing is fused into it."""
        like, pieces = source[next(iter(rows.values()))], []
        for row in range(n):
            flat = jnp.ravel(source[rows[row]]) if row in rows else jnp.zeros(0, like.dtype)
            pieces += [flat, jnp.zeros(width - flat.size, like.dtype)]
        return lax.optimization_barrier(jnp.concatenate(pieces).reshape(n, width))

    def counted(self) -> Any:
        """The vector of step counts with the new ones in their places."""
        ticks = np.zeros(self.counts.shape, self.counts.dtype)
        ticks[[leaf.clock for leaf in self.leaves]] = 1
        counts = self.counts + (ticks if self.good is None else jnp.where(self.good, ticks, 0))
        pieces, at = [], 0
        for start in sorted(self.new_counts):
            pieces += [counts[at:start], self.new_counts[start]]
            at = start + self.new_counts[start].shape[0]
        return jnp.concatenate([*pieces, counts[at:]]).astype(self.counts.dtype)


def _now(rule: Any, clock: Any, x: Any) -> Any:
    """A rule with its schedules evaluated at the steps taken so far, in the dtype of `x`."""
    if not schedules_in(rule):
        return rule
    at = lambda f: (
        jax.vmap(lambda t: jnp.asarray(f(t)))(clock[:, 0])[:, None]
        if clock.ndim
        else jnp.asarray(f(clock))
    )
    return timed(rule, lambda f: at(f).astype(real_dtype(x)))


def _apply_one(rule: Any, pack: Pack, i: int, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
    """One rule, with its numbers as hyperparameters of the program as far as it lets them."""
    how = _views.setdefault(_classes(rule), "hyper")
    if how == "static":
        return static_view(rule).apply(state, x, dx)
    view = hyper_view(rule, pack, i) if how == "hyper" else array_view(rule, pack, i, x)
    try:
        return view.apply(state, x, dx)
    except (TypeError, jax.errors.JAXTypeError):
        _views[_classes(rule)] = _VIEWS[_VIEWS.index(how) + 1]
        return _apply_one(rule, pack, i, state, x, dx)


# --- programs by structure ----------------------------------------------------------------

_programs: OrderedDict[Any, Any] = OrderedDict()
_LIMIT = 256


def program_for(key: Any, make: Any) -> Any:
    """The program of a key, made if it is not there; the oldest goes when there are many."""
    found = _programs.get(key)
    if found is None:
        found = _programs[key] = make()
        if len(_programs) > _LIMIT:
            _programs.popitem(last=False)
    else:
        _programs.move_to_end(key)
    return found


def clear_programs() -> None:
    """Forget every compiled update."""
    _programs.clear()


def size_for(rules: list[Any]) -> int:
    """The length of the vector of hyperparameters for rules."""
    return max(8, room(rules))


def all_watched(rules: list[Any]) -> bool:
    """Whether every change of these rules is noted in `version`."""
    return all(watched(rule) for rule in rules)
