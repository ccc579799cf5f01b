"""The rules of many leaves as one program: traced once, for all leaves together."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax.optimisers._hold import LeafStep, shared_scalars
from fluxax.optimisers._hyper import Pack
from fluxax.optimisers._meeting import Speaker, WholeTree, converse, speaking
from fluxax.optimisers._programs import Numbers as Numbers
from fluxax.optimisers._programs import Template, apply_one, now
from fluxax.optimisers._programs import size_for as size_for
from fluxax.optimisers._programs import template as template
from fluxax.optimisers._rule import rules_in
from fluxax.optimisers._state import Slot
from fluxax.optimisers._taken import stepped, take
from fluxax.optimisers._views import rows_view
from fluxax.optimisers._widen import widened


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
    units = [step.alone_unit(k) for k in alone]
    rows = [step.rows_unit(members) for members in together.values()]
    converse([u.speaker for u in (*units, *rows) if u.speaker], until_answered=True)
    step.alone(alone, units)
    for members, unit in zip(together.values(), rows, strict=True):
        step.in_rows(members, unit)
    numbers.pack = step.pack  # now that it is whole
    return step.new_arrays, step.counted(), step.new_xs


class Inputs(NamedTuple):
    """What a step takes beside parameters and gradients."""

    vector: Any  # hyperparameters
    arrays: list[Any]  # of the state
    counts: Any
    good: Any = None  # a flag that holds everything back where it is false


class _Unit(NamedTuple):
    """What is traced as one: a leaf, or the leaves that share arrays."""

    apply: Any
    old: list[Any]  # its state, flat
    x: Any
    dx: Any
    speaker: Speaker | None  # if its rule looks at the whole tree

    def step(self, vector: Any) -> LeafStep:
        """The step as a jaxpr; what it asks must have been answered."""
        with speaking(self.speaker):
            return LeafStep(self.apply, self.old, self.x, self.dx, vector)


def _unit(rule: Any, apply: Any, old: list[Any], x: Any, dx: Any, real: Any, place: Any) -> _Unit:
    asks = any(isinstance(r, WholeTree) for r in rules_in(rule))
    speaker = Speaker(rule, lambda: apply(old, x, dx), real, place) if asks else None
    return _Unit(apply, old, x, dx, speaker)


def _row_slots(leaf: Template) -> list[Slot]:
    """Where the states of leaves that share arrays begin, from the slots of one of them."""
    return [s._replace(i=s.i - (s.row or 0) if s.sort == "count" else s.i) for s in leaf.slots]


class _Step:
    """One trace of the rules of all leaves."""

    def __init__(self, leaves: list[Template], inputs: Inputs, xs: list[Any], grads: list[Any]):
        self.leaves, self.xs, self.grads = leaves, xs, grads
        self.arrays, self.counts, self.good = inputs.arrays, inputs.counts, inputs.good
        self.pack = Pack(inputs.vector)
        self.new_xs, self.new_arrays = list(xs), list(inputs.arrays)
        self.new_counts: dict[int, Any] = {}  # by position: a vector that starts there
        self.written: set[tuple[str, int]] = set()  # states of leaves with arrays of their own

    def alone_unit(self, k: int) -> _Unit:
        """The step of a leaf with arrays of its own."""
        leaf, x = self.leaves[k], self.xs[k]
        rule = now(leaf.rule, self.counts[leaf.clock])

        def apply(state: list[Any], x: Any, dx: Any) -> tuple[list[Any], Any, Any]:
            whole = jax.tree.unflatten(leaf.structure, state)
            new, new_x, taken = apply_one(rule, self.pack, k, whole, x, dx)
            return leaf.structure.flatten_up_to(new), new_x, taken

        old = [self.counts[s.i] if s.sort == "count" else self.arrays[s.i] for s in leaf.slots]
        return _unit(leaf.rule, apply, old, x, self.grads[k], None, leaf.place)

    def alone(self, ks: list[int], units: list[_Unit]) -> None:
        """The steps of leaves with arrays of their own; what is scalar in them, together."""
        groups: dict[Any, list[tuple[int, LeafStep]]] = {}
        for k, unit in zip(ks, units, strict=True):
            step = unit.step(self.pack.vector)
            groups.setdefault(step.scalars.key, []).append((k, step))
        for group in groups.values():
            self._finish([k for k, _ in group], [step for _, step in group])

    def _finish(self, ks: list[int], steps: list[LeafStep]) -> None:
        """Steps whose scalar parts are alike."""
        results, counted = steps[0].scalars.results, steps[0].scalars.counts
        at = [[self.leaves[k].slots[p].i for p in counted] for k in ks]
        shared = shared_scalars(steps, self.pack.vector, at, self.counts) if results else []
        for i, (k, step) in enumerate(zip(ks, steps, strict=True)):
            given = {v: values[i] for v, values in zip(step.scalars.results, shared, strict=True)}
            new, new_x, taken = step.finish(given, self.good)
            self.new_xs[k] = self._held(new_x, self.xs[k])
            self._tick(k, taken)
            for slot, value in zip(self.leaves[k].slots, new, strict=True):
                self._write(slot, value, taken)
        for p, starts in zip(counted, zip(*at, strict=True), strict=True):
            self._join(list(starts), [step.jaxpr.outvars[p] for step in steps], results, shared)

    def _write(self, slot: Slot, value: Any, taken: Any) -> None:
        """A new state; of one that leaves have in common, that of a leaf that took its step."""
        store, i = (self.new_arrays, slot.i) if slot.sort == "array" else (self.new_counts, slot.i)
        value = value if slot.sort == "array" else jnp.reshape(value, 1)
        again = (slot.sort, i) in self.written and not isinstance(taken, bool)
        store[i] = jnp.where(taken, value, store[i]) if again else value
        self.written.add((slot.sort, i))

    def _held(self, new: Any, old: Any, taken: Any = True) -> Any:
        """The new parameter, or the old one where the step is not taken or held back."""
        flags = [f for f in (taken, self.good) if not isinstance(f, (bool, type(None)))]
        for flag in flags:
            new = jnp.where(flag, new, old)
        return new if taken is not False else old

    def _tick(self, k: int, taken: Any) -> None:
        """One more step of a leaf, if it was taken."""
        if taken is not True:
            on = jnp.asarray(taken).reshape(1)
            on = on if self.good is None else on & self.good
            clock = self.leaves[k].clock
            self.new_counts[clock] = self.counts[clock : clock + 1] + on

    def _join(self, starts: list[int], outs: list[Any], results: list[Any], shared: Any) -> None:
        """Counts that lie next to each other, as the one vector that they were computed as."""
        if outs[0] in results and starts == list(range(starts[0], starts[0] + len(starts))):
            new, n = shared[results.index(outs[0])], len(starts)
            if self.good is not None:
                new = jnp.where(self.good, new, self.counts[starts[0] : starts[0] + n])
            for start in starts:
                del self.new_counts[start]
            self.new_counts[starts[0]] = new

    def rows_unit(self, rows: dict[int, int]) -> _Unit:
        """The step of leaves that share arrays; rows of leaves that take none stay as they are."""
        some = next(iter(rows.values()))
        first = self.leaves[some]
        n, width = self.arrays[next(s.i for s in first.slots if s.sort == "array")].shape
        x, dx = (self._block(rows, source, n, width) for source in (self.xs, self.grads))
        members = [rows.get(row, some) for row in range(n)]
        clocks = self.counts[np.array([self.leaves[k].clock for k in members])][:, None]
        view = rows_view(now(first.rule, clocks), self.pack, members)

        run = take if hasattr(view, "parameter") else stepped

        def apply(state: list[Any], x: Any, dx: Any) -> tuple[list[Any], Any, Any]:
            new, out, taken = run(view, jax.tree.unflatten(first.structure, state), x, dx)
            out = jnp.broadcast_to(out, x.shape)  # it may be one number
            return first.structure.flatten_up_to(new), out, taken

        old = [
            self.counts[s.i : s.i + n, None] if s.sort == "count" else self.arrays[s.i]
            for s in _row_slots(first)
        ]
        sizes = [math.prod(self.leaves[rows[r]].shape) if r in rows else 0 for r in range(n)]
        real = np.arange(width) < np.array(sizes)[:, None]
        return _unit(first.rule, apply, old, x, dx, real, None)

    def in_rows(self, rows: dict[int, int], unit: _Unit) -> None:
        """The results of leaves that share arrays."""
        first = self.leaves[next(iter(rows.values()))]
        new, out, taken = unit.step(None).finish({}, self._moving(rows, len(unit.x)))
        for slot, value in zip(_row_slots(first), new, strict=True):
            if slot.sort == "count":
                self.new_counts[slot.i] = value[:, 0]
            else:
                self.new_arrays[slot.i] = value
        whole = hasattr(first.rule, "parameter")
        for row, k in rows.items():
            x, flag = self.xs[k], taken if isinstance(taken, bool) else taken[row, 0]
            mine = out[row, : math.prod(x.shape)].reshape(x.shape)
            self.new_xs[k] = self._held(
                mine if whole else (widened(x) - mine).astype(x.dtype), x, flag
            )
            self._tick(k, flag)

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
        ticks[[leaf.clock for leaf in self.leaves]] = 1  # those not always taken are in new_counts
        counts = self.counts + (ticks if self.good is None else jnp.where(self.good, ticks, 0))
        pieces, at = [], 0
        for start in sorted(self.new_counts):
            pieces += [counts[at:start], self.new_counts[start]]
            at = start + self.new_counts[start].shape[0]
        return jnp.concatenate([*pieces, counts[at:]]).astype(self.counts.dtype)
