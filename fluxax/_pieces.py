"""Many training steps per dispatch: a loop on the device over batches that it gathers itself.

For small nets a step's time goes to Python and dispatch. A `DataLoader` over arrays tells which
rows make each batch; the arrays stay on the device, and one program runs a few hundred steps, each
the very step of `_step`, guard included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax import _random, _tree
from fluxax._between import stepping
from fluxax._compile._check import setting
from fluxax._compile._dispatch import ShapeMiss, jitted, watching, weakly
from fluxax._compile._nest import inputs_at
from fluxax._compile._traced import Program
from fluxax._draws import ROOT, Turn
from fluxax._jax import beside
from fluxax._primitives import depth, inside, turns
from fluxax._step import Fused, Ready, attempt
from fluxax.kernels import options_for
from fluxax.optimisers._update import whole

#: Steps of more arithmetic than this gain nothing from a loop; of less, a piece has `_MOST` steps.
_HEAVY, _LIGHT = 1e8, 1e6
_MOST, _FEWEST = 1024, 16

_LOOPS = 16  # programs of one step for data of different lengths, at most

#: XLA runs these several times slower inside a loop on a CPU (measured: 3.4 times, LeNet).
_SLOW_IN_LOOPS = frozenset(("conv_general_dilated",))


class Piece(NamedTuple):
    """What a piece gave, on the device."""

    value: Any  # what the loss returned, of all steps, stacked
    done: Any  # how many steps were good
    good: Any  # whether all were
    tickets: Any = None  # where the steps draw random numbers: their numbers


class Loop:
    """The loop of a fused step.

    Args:
        fused: the step.
        batch: by array of the data: the input of the objective that is its batch.
        wanted: how many of the objective's outputs are kept for every step.
        most: steps in a piece, at most.
    """

    def __init__(self, fused: Fused, batch: list[int], wanted: int, most: int):
        program = fused.program
        parameters = set(program.parameters or ())
        n_inputs = len(program.closed.jaxpr.invars)
        self.root = n_inputs - 1 if program.draws else None  # the input that differs in every step
        n_inputs -= self.root is None  # none of the program's
        self.others = [i for i in range(n_inputs) if i not in parameters]
        self.fused, self.batch, self.wanted, self.most = fused, batch, wanted, most
        self.written = [w.input for w in program.writes if w.input is not None]
        self.rest = [i for i in self.others if i not in batch and i not in self.written]
        options = options_for(fused.program.closed, training=True)
        self.call = jitted(weakly(self._run), "train", donated=(6, 7), options=options)
        self.fresh = True

    def _run(
        self,
        parameters: Any,
        others: Any,
        data: Any,
        places: Any,
        roots: Any,
        n: Any,
        arrays: Any,
        counts: Any,
        vector: Any,
        alive: Any,
    ) -> Any:
        inputs = dict(zip(self.others, others, strict=True))
        written = [inputs[i] for i in self.written]

        def body(k: Any, carry: Any) -> Any:
            parameters, written, arrays, counts, done, alive, values = carry
            inputs.update(zip(self.written, written, strict=True))
            for i, array in zip(self.batch, data, strict=True):
                inputs[i] = array.at[places[k]].get(mode="promise_in_bounds")
            if self.root is not None:
                inputs[self.root] = roots[k]
            now = [inputs[i] for i in self.others]
            new = self.fused.run(parameters, now, arrays, counts, vector, alive)
            arrays, counts, xs, outs, states, good = new
            parameters = list(parameters)
            for position, x in zip(self.fused.position, xs, strict=True):
                parameters[position] = x.astype(parameters[position].dtype)
            written = [s.astype(w.dtype) for s, w in zip(states, written, strict=True)]
            values = [v.at[k].set(o) for v, o in zip(values, outs, strict=False)]
            return parameters, written, arrays, counts, done + good, good, values

        shapes = self.fused.program.closed.out_avals[: self.wanted]
        values = [jnp.zeros((self.most, *a.shape), a.dtype) for a in shapes]
        carry = (list(parameters), written, arrays, counts, jnp.int32(0), alive, values)
        parameters, written, arrays, counts, done, alive, values = lax.fori_loop(0, n, body, carry)
        xs = [parameters[position] for position in self.fused.position]
        return arrays, counts, xs, (values, done), written, alive


def steps_in_piece(program: Program) -> int:
    """How many steps one dispatch has, 0 for single steps: a function of the program alone.

    A loop saves 50 to 100 µs of dispatch per step. So where a step computes for milliseconds
    there is nothing to gain; and some operations are slow in loops.
    """
    if not all(_carried(program, w) for w in program.writes):
        return 0
    work = 3 * arithmetic(program.closed.jaxpr)  # forward, and twice as much backward
    if not work <= _HEAVY:
        return 0
    return int(max(_FEWEST, _MOST / 2 ** max(0, math.ceil(math.log2(work / _LIGHT)))))


def _carried(program: Program, write: Any) -> bool:
    """Whether a layer's state is one that a loop can carry: read first, and of one shape."""
    if write.input is None:
        return False
    new = program.closed.out_avals[program.n_outputs + program.writes.index(write)]
    old = program.closed.in_avals[write.input]
    return (new.shape, new.dtype) == (old.shape, old.dtype)


def arithmetic(jaxpr: Any) -> float:
    """Floating-point operations of a program, roughly; infinite if it should not be in a loop."""
    total = 1.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _SLOW_IN_LOOPS:
            return math.inf
        if name == "dot_general":
            total += 2 * depth(eqn) * math.prod(eqn.outvars[0].aval.shape)
            continue
        inner = inside(eqn)
        total += turns(eqn) * sum(arithmetic(j) for j in inner)
        if not inner:
            total += sum(math.prod(getattr(v.aval, "shape", ())) for v in eqn.outvars)
    return total


class Pieces:
    """The pieces of one pass: `source` says which rows, the arrays lie on the device."""

    def __init__(self, who: str, loss: Any, model: Any, source: Any, opt_state: Any, items: Any):
        self.who, self.loss, self.model, self.opt_state = who, loss, model, opt_state
        self.source = source
        self.items = items  # from a batch to the loss's further arguments
        self.whole = _whole_batches(source)
        self.data: list[Any] | None = None
        self.last: Any = None  # the flag of the last piece

    def run(self, *, has_aux: bool) -> Iterator[tuple[int, Piece]]:
        """Train in pieces as far as that goes: (number of steps, what they gave) for each."""
        start, alive = 0, None
        first = None if has_aux else 1
        if self.whole < 2 or watching() or setting.every or _random.now.draws is not None:
            return  # the results of every step are to be looked at; or it is inside an objective
        example = self._example()
        while start < self.whole:
            try:
                done = self._next(example, first, start, alive)
            except ShapeMiss:  # an array inside the model is another: single steps know what to do
                return
            if done is None:
                return
            n, piece = done
            start, alive = start + n, piece.good
            self.last = alive
            yield n, piece

    @stepping
    def _next(
        self, example: tuple[Any, ...], first: int | None, start: int, alive: Any
    ) -> tuple[int, Piece] | None:
        """Run the piece that begins at a step; `None` where that can't be."""
        made = attempt(self.who, self.loss, self.model, example, self.opt_state, alive)
        loop = None if made is None else self._loop(made.fused, first)
        if made is None or loop is None:
            return None
        n = min(loop.most, self.whole - start)
        return (n, self._one(made, loop, start, n)) if made.holds_for(n) else None

    def _example(self) -> tuple[Any, ...]:
        """The arguments of the loss for the first batch, which say what to compile."""
        first = self.source.block(0, 1)[0]
        batch = self.source.nest([leaf[first] for leaf in self.source.leaves])
        return (self.model, *self.items(batch))

    def _loop(self, fused: Fused, first: int | None) -> Loop | None:
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in self.source.leaves)
        key = self.source.batchsize, shapes, first
        if len(fused.loops) > _LOOPS:
            fused.loops.clear()
        if key not in fused.loops:
            most, batch = steps_in_piece(fused.program), self._inputs(fused.program)
            wanted = first or fused.program.n_outputs
            fused.loops[key] = Loop(fused, batch, wanted, most) if most and batch else None
        return fused.loops[key]

    def _inputs(self, program: Program) -> list[int] | None:
        """By array of the data: the input of the objective that its batch is."""
        numbers = self.items(self.source.nest(list(range(len(self.source.leaves)))))
        at: dict[int, int] = {}
        for part, nest in zip(numbers, program.nests[1:], strict=True):
            inputs = inputs_at(nest)
            for path, number in _tree.walk(part):
                at[number] = inputs.pop(tuple(map(_tree.key_name, path)), -1)
            if inputs:
                return None
        found = [at.get(number, -1) for number in range(len(self.source.leaves))]
        return None if -1 in found or len(set(found)) < len(found) else found

    def _one(self, made: Ready, loop: Loop, start: int, n: int) -> Piece:
        if self.data is None:  # may be the very memory of NumPy arrays: `close` waits
            like = made.arguments[0][0] if made.arguments[0] else None
            self.data = [
                leaf if isinstance(leaf, jax.Array) else beside(leaf, like)
                for leaf in self.source.leaves
            ]
        draws = loop.fused.program.draws
        if not draws:
            return self._run(made, loop, start, n, None, lambda piece: piece)
        with Turn(draws, n) as turn:
            roots = np.resize(turn.root, (loop.most, *ROOT.shape))
            over = lambda piece: turn.over(piece._replace(tickets=turn.tickets))
            return self._run(made, loop, start, n, roots, over)

    def _run(self, made: Ready, loop: Loop, start: int, n: int, roots: Any, over: Any) -> Piece:
        places = np.zeros((loop.most, *self.source.block(0, 1).shape[1:]), np.int32)
        places[:n] = self.source.block(start, start + n)
        parameters, others, *states = made.arguments
        arguments = (parameters, others, self.data, places, roots, np.int32(n), *states)
        began = time.perf_counter() if loop.fresh else None

        def commit(new: Any) -> Piece:
            (values, done), good = made.commit(new)
            self.source.mark(start + n)
            program = loop.fused.program
            value = values[0] if loop.wanted == 1 else program.value(values, made.own)
            return over(Piece(value, done, good))

        piece = whole(loop.call, arguments, commit)
        if began is not None:
            loop.fresh = False
            made.record.seconds += time.perf_counter() - began
        return piece

    def close(self) -> None:
        """Wait for whatever still reads the arrays, which may be the caller's memory."""
        jax.block_until_ready(self.last)


def _whole_batches(source: Any) -> int:
    n = len(source)
    short = n and len(source.leaves) and _length(source, n - 1) != _length(source, 0)
    return n - bool(short)


def _length(source: Any, k: int) -> int:
    return next(source.batches(k)).size
