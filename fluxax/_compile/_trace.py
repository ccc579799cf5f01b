"""One trace: the function runs on copies, and what came out is checked."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from fluxax._compile import _boxes as boxes
from fluxax._compile import _explain
from fluxax._compile._bystanders import garbage_waits, living
from fluxax._compile._capture import Capture
from fluxax._compile._constants import is_converted, taken_for_older, with_own_constants
from fluxax._compile._content import Content, content_of
from fluxax._compile._dispatch import no_leaks
from fluxax._compile._effects import ArrayWrite, random_state, restore, restore_random
from fluxax._compile._guard import make_guard
from fluxax._compile._jaxpr import dependence, lonely_numbers
from fluxax._compile._nest import nests_of
from fluxax._compile._objective import BadLoss, check_loss, first_of, loss_array, objective
from fluxax._compile._outputs import Recipe
from fluxax._compile._questions import watch
from fluxax._compile._reads import innermost, is_users_own, place_of
from fluxax._compile._rebuild import NUMBER_NEEDED, Rebuild
from fluxax._compile._site import Entry, Purpose, Site
from fluxax._compile._spec import (
    Arr,
    Box,
    Sidestep,
    Spec,
    Tied,
    argument_of,
    boxes_of,
    count_arrays,
    input_of,
    raised,
)
from fluxax._compile._traced import Program, Write, floating
from fluxax._compile._tripwire import NEEDS_VALUE, Tripwire
from fluxax._compile._walk import FIXED, INPUT
from fluxax._draws import ROOT, drawing_from
from fluxax._errors import InputError, warn
from fluxax._implicit._params import Live
from fluxax._jax import forget_traces
from fluxax._primitives import calls_back

Frozen = Callable[[], frozenset[int]]  # ids of the Modules below frozen nodes, for a trace


class Trace:
    """One trace of a function on copies."""

    def __init__(
        self,
        site: Site,
        capture: Capture,
        arguments: list[Spec],
        function: Spec,
        purpose: Purpose,
        frozen: Frozen,
        watched: bool = True,
    ):
        self.watched = (
            watched  # whether sensors look on; a check goes without, several times faster
        )
        self.site, self.capture, self.purpose = site, capture, purpose
        self.arguments, self.function, self.frozen = arguments, function, frozen
        self.writes: list[tuple[Box, str, Any]] = []
        self.make: Any = None  # what the function returned, from the outputs
        self.made: list[Any] = []  # the same, to be compared
        self.returned: list[Box] = []  # what of it was the caller's
        self.answers: dict[int, list[Any]] = {}
        self.n_outputs = 0
        self.draws = 0  # how many random numbers of ours it draws
        self.stand_ins: list[Any] = []  # what stands for NumPy arrays
        self.tripwire, self.before, self.rebuild = Tripwire(), [], Rebuild((), (), ())
        self.arrays_of_arguments = count_arrays(arguments)
        # the function reads the parameters of Params itself: they are not passed to it
        self.outside = bool(arguments) and isinstance(arguments[0].value, Live)

    def entry(self, key: Any) -> Entry | None:
        """The new entry; `None` if a number turned out to have to stay constant."""
        start = time.perf_counter()
        try:
            closed = self.closed()
        except (BadLoss, ArrayWrite):
            raise
        except Exception as error:  # user code on copies: nothing has happened yet
            return self._failed(error)
        except Sidestep as reason:
            if self._learns(reason) or self._number_is_to_blame(_asks_value(str(reason))):
                return None
            raise reason
        except BaseException as error:
            if not is_users_own(error):
                raise  # Ctrl-C
            raise Sidestep(f"it raises {type(error).__name__}{place_of(error)}") from None
        lonely = self._lonely(closed)
        if lonely:
            for label in lonely:
                self.site.known.numbers[label] = FIXED
            return None
        self.site.proven |= {n for n, state in self.site.known.numbers.items() if state == INPUT}
        program = self._program(closed)
        program.content, program.known = self.content(closed), self.site.known.copy()
        program.written_at = [(box.number, name) for box, name, _ in self.writes]
        program.returned_at = [box.number for box in self.returned]
        program.answers = self.answers
        guard, program.places = guard_for(program, self.arguments, self.function)
        record = self.site.record
        record.traced(_explain.difference(record, self.capture.key, self.purpose.settings))
        record.tokens, record.settings = self.capture.key, self.purpose.settings
        record.seconds += time.perf_counter() - start
        self._describe(record)
        return Entry(guard, program, key)

    def _describe(self, record: _explain.Record) -> None:
        numbers = [t[0] for t in self.capture.tokens if t[1] == "input"]
        record.inputs = (*self.capture.labels, *numbers, *["random numbers"] * bool(self.draws))
        record.constants = {label: v for (label, _), v in self.capture.constants.items()}
        copied = [a for a in self.capture.arrays if type(a) is np.ndarray]
        record.bytes_copied = sum(a.nbytes for a in copied)
        inside = self.capture.arrays[self.arrays_of_arguments :]
        dragged = [a for a in inside if type(a) is np.ndarray and a.nbytes > _HEAVY]
        if dragged:
            warn(
                f"{record.where} reads {sum(a.nbytes for a in dragged) >> 20} MB of NumPy arrays "
                "from outside, which are copied at every call. Make them JAX arrays once, with "
                "jnp.asarray."
            )

    def _failed(self, error: Exception) -> None:
        if self._writes_ours(error):
            raise ArrayWrite(
                "The objective expects to leave NumPy arrays as they are, got a write to one"
                f"{place_of(error)}. Inside an objective they are JAX arrays: use x.at[i].set(v)."
            ) from None
        if self._number_is_to_blame():
            return
        if self.tripwire.reason is not None:
            raise Sidestep(self.tripwire.reason) from None
        if isinstance(error, InputError):
            raise error  # uncompiled it would be the same, after compiling what comes before it
        if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
            raise Sidestep(f"{NEEDS_VALUE}{place_of(error)}") from None
        raise Sidestep(
            f"tracing it raised {type(error).__name__}: {_first_line(error)}{place_of(error)}"
        ) from None

    def _learns(self, reason: Sidestep) -> bool:
        """Whether it read an attribute that no code mentions: the next walk looks at it as well.

        After the third, at all that stand beside it.
        """
        site = self.site
        new = [n for n in reason.learn[:1] if n not in site.known.names]
        if new and site.learnt >= _FEW:
            new = list(reason.learn)
        site.known.names.update(new)
        site.learnt += bool(new)
        return bool(new)

    def _writes_ours(self, error: Exception) -> bool:
        """Whether an error says that an array was written which stands for a NumPy array."""
        frame, _ = innermost(error)
        if type(error) is not TypeError or frame.f_code.co_name != "_unimplemented_setitem":
            return False
        written = frame.f_locals.get("self")
        return any(written is array for array in self.stand_ins)

    def _number_is_to_blame(self, asks_value: bool = True) -> bool:
        """Whether numbers were inputs in a trace that failed; they become constants again.

        Args:
            asks_value: whether it failed for want of a value, so that an int to differentiate by
                may be to blame.
        """
        suspects = [n for n, state in self.site.known.numbers.items() if state == INPUT]
        unproven = [n for n in suspects if n not in self.site.proven]
        blamed = unproven or suspects
        for label in blamed:
            if len(blamed) > 1:  # which one it is shows when they are tried one by one
                del self.site.known.numbers[label]
            else:
                self.site.known.numbers[label] = FIXED
        self.site.careful |= len(blamed) > 1
        for i in self.capture.real if asks_value and not blamed else ():
            position = argument_of(self.arguments, i)
            if position is not None and self.site.known.ints.get(position, True):
                self.site.known.ints[position] = False
                return True
        return bool(blamed)

    def closed(self) -> Any:
        """The program of the function on copies of what it reads."""
        arrays = [
            jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype))
            if type(a) is np.ndarray
            else a
            for a in self.capture.arrays
        ]
        numbers = [
            float(n) if i in self.capture.real else n for i, n in enumerate(self.capture.values)
        ]
        before = self.before = [(b, b.how.state(b.value)) for b in self.capture.fixed_boxes]
        state = random_state()
        if self.capture.fixed_data and self.capture.remembering:
            forget_traces()
        converted = self._converted()
        run = [self._flat]
        try:
            with no_leaks(), garbage_waits():
                closed = jax.make_jaxpr(lambda *inputs: run[0](*inputs))(*arrays, *numbers, ROOT)
        finally:
            touched = restore(before)
            randomness = restore_random(state)
            run.clear()  # what is left as garbage must not keep the user's objects alive
            self.rebuild.let_go()
        if touched or randomness:
            raise Sidestep(touched or randomness or "")
        if by := calls_back(closed.jaxpr):
            raise Sidestep(f"it calls back into Python while the program runs (by `{by}`)")
        closed = with_own_constants(closed)
        if converted:
            gc.collect()  # what is left of the trace holds conversions that JAX would use again
        return closed

    def _converted(self) -> bool:
        """Whether there are NumPy constants of which JAX makes others, and takes them for these."""
        fixed = [box for box in self.capture.fixed_boxes if box.how is boxes.ARRAY]
        converted = [box for box in fixed if is_converted(box.value)]
        for box in converted:
            if taken_for_older(box.value):
                raise InputError(
                    f"The objective expects JAX to see `{box.label}` as it is, got an array that "
                    "was written in place while a jax.jit function holds what it was. Make it a "
                    "JAX array"
                )
        return bool(converted)

    def _flat(self, *inputs: Any) -> list[Any]:
        """The function of its inputs alone, run on copies; what it wrote comes out as well."""
        n = len(self.capture.arrays)
        arrays, numbers = inputs[:n], inputs[n:-1]
        raised.reason, raised.learn = None, ()
        still = 0 if self.outside else self.arrays_of_arguments
        captured = _Captured(arrays, still)
        rebuild = self.rebuild = Rebuild(arrays, captured, numbers)
        numpy = [type(a) is np.ndarray for a in self.capture.arrays]
        self.stand_ins = [a for a, ours in zip(arrays, numpy, strict=True) if ours]
        captured.given = self.stand_ins
        tripwire = self.tripwire = Tripwire()
        tripwire.codes, tripwire.unlooked = self.capture.fixed_codes, self.capture.unlooked
        watch(n for i, n in enumerate(numbers) if i not in self.capture.real)
        classes = [b.value for b in self.capture.fixed_boxes if b.how is boxes.CLASS]
        tripwire.alive, tripwire.before = living(classes), self.before
        args = rebuild.arguments(self.arguments[self.outside :])
        f = rebuild.function(self.function)
        tripwire.spaces = dict.fromkeys(rebuild.spaces())
        mode = objective(self.purpose.training, rebuild.copies_of(self.frozen()))
        sensors = tripwire.armed(sys._getframe()) if self.watched else nullcontext()
        with drawing_from(inputs[-1]) as draws, mode, sensors:
            out = f(*args)
        self.draws = draws.count
        tripwire.check()
        if raised.reason is not None:  # somebody swallowed it
            raise Sidestep(raised.reason, raised.learn)
        outs: list[Any] = []
        self.writes, self.answers = rebuild.writes(), rebuild.answers()
        self.make = self._recipe(out, outs, rebuild)
        self.n_outputs = len(outs)
        return [*outs, *(array for _, _, array in self.writes)]

    def _recipe(self, out: Any, outs: list[Any], rebuild: Rebuild) -> Any:
        """How to make what was returned of the outputs; arrays in there are put into `outs`."""
        if self.purpose.name != "value":
            outs.append(loss_array(out))
            if first_of(out) is out:
                return None

        def leaf(array: Any) -> int:
            outs.append(array)
            return len(outs) - 1

        recipe = Recipe(leaf, rebuild.original, numpy=self.purpose.name != "step")
        maker = recipe.of(out)
        self.returned, self.made = recipe.returned, recipe.tokens
        return maker

    def content(self, closed: Any) -> Content:
        """What the program is made of, for a later trace to be compared with."""
        writes = [(box.number, name) for box, name, _ in self.writes]
        return content_of(closed, [*self.made, *writes, self.n_outputs])

    def _lonely(self, closed: Any) -> list[Any]:
        n = len(self.capture.arrays)
        numbers = {n + i: i for i in range(len(self.capture.values)) if i not in self.capture.real}
        return [self.capture.places[i] for i in sorted(lonely_numbers(closed.jaxpr, numbers))]

    def _program(self, closed: Any) -> Program:
        writes = [
            Write(input_of(box, name), name, f"{box.label}.{name}") for box, name, _ in self.writes
        ]
        program = Program(closed, self.make, writes, self.n_outputs, self.draws)
        capture = self.capture
        program.n_arrays = len(capture.arrays)
        if self.purpose.name == "value":
            program.call = program.compile_run()
            return program
        check_loss(closed.out_avals[0], self.site.record.where)
        leaves = [t and floating(a) for t, a in zip(capture.trainable, capture.arrays, strict=True)]
        leaves += [i in capture.real for i in range(len(capture.values))] + [False]  # the root
        wanted = [i == 0 for i in range(len(closed.out_avals))]
        depends = dependence(closed.jaxpr, wanted)
        program.used = [
            i for i, (leaf, d) in enumerate(zip(leaves, depends, strict=True)) if leaf and d
        ]
        program.n_leaves = sum(leaves)
        if self.purpose.name == "step":
            program.parameters = [
                i for i, leaf in enumerate(leaves) if leaf and i < program.n_arrays
            ]
        program.nests = nests_of(self.arguments, program.n_arrays)
        if self.outside:
            program.alone = _named_alone(self.function) & frozenset(range(self.arrays_of_arguments))
        return program


def guard_for(program: Program, arguments: list[Spec], function: Spec) -> tuple[Any, Any]:
    """A guard of a program for what a walk found, and where the parameters stand.

    One key, and so one program, may have several guards: a NumPy array is an input as a JAX array
    is, a function of the same code may be another object, as in a cell that was run again.
    """
    found = {box.number: box for root in (*arguments, function) for box in boxes_of(root)}
    written = [(found[number], name) for number, name in program.written_at]
    returned = [found[number] for number in program.returned_at]
    for number, answers in program.answers.items():
        found[number].checks[-1][1][:] = answers
    return make_guard(function, arguments, written, returned, program.parameters)


_HEAVY, _FEW = 16 << 20, 3


class _Captured(Sequence[Any]):
    """What stands for an array where the function reads it from outside: no derivative."""

    def __init__(self, arrays: Any, n_arguments: int):
        self.arrays, self.n_arguments = arrays, n_arguments
        self.given: list[Any] = []  # what stands for NumPy arrays

    def __getitem__(self, index: Any) -> Any:
        array = self.arrays[index]
        if index >= self.n_arguments:
            return array
        still = jax.lax.stop_gradient(array)
        if any(array is a for a in self.given):
            self.given.append(still)
        return still

    def __len__(self) -> int:
        return len(self.arrays)


# --- small questions ----------------------------------------------------------------------


def _named_alone(function: Spec) -> frozenset[int]:
    """The arrays that stand in variables of a function, and in no container that it reads."""
    named: set[int] = set()
    held: set[int] = set()
    stack = [function]
    while stack:
        box = stack.pop()
        if isinstance(box, Box):
            into = named if box.how in _VARIABLES else held
            parts = [part for _, _, part in box.parts]
            into.update(part.index for part in parts if isinstance(part, (Arr, Tied)))
            stack += parts
    return frozenset(named - held)


_VARIABLES = (boxes.CELL, boxes.FUNCTION, boxes.PARTIAL)


def _asks_value(reason: str) -> bool:
    return reason.startswith((NEEDS_VALUE, NUMBER_NEEDED))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
