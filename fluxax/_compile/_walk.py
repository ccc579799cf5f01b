"""The state of a walk, and what it makes of arrays, numbers and constants: the leaves."""

from __future__ import annotations

import decimal
from collections import Counter
from typing import Any

import jax
import numpy as np

from fluxax._compile import _boxes as boxes
from fluxax._compile._reads import Reads, reads_of
from fluxax._compile._spec import (
    Arr,
    Box,
    Const,
    How,
    Is,
    Num,
    Opaque,
    Sidestep,
    Spec,
    Tied,
    decimal_context,
    raised,
)  # fmt: skip
from fluxax._jax import Tracer
from fluxax._module import Module, static_key

_MOST_BYTES = 1 << 20
#: Questions that no sensor sees (`_questions`): of an input they would answer wrongly.
_TYPE_QUESTIONS = frozenset(("type()", "isinstance()", "isscalar"))

_ASKING = frozenset("type hasattr isinstance getattr vars dir".split())
_MOST_BOXES = 20_000
FIXED_PHASE = "fixed"

#: What a number has been seen to do: it may become an input, or it must stay a constant.
INPUT, FIXED = "input", "fixed"


class Walk:
    """What all parts of one walk share.

    Args:
        numbers: what is known of the numbers, by place: a label, and how often it came before.
        names: the attribute names that reached code mentions.
        pinned: ids of what code that runs as it is reaches as well: no copies are made of these.
    """

    def __init__(self, numbers: dict[Any, Any], names: set[str], pinned: set[int]):
        self.numbers, self.names, self.pinned = numbers, names, pinned
        self.arrays: list[Any] = []
        self.values: list[Any] = []  # numbers that are inputs
        self.places: list[Any] = []  # of those: which number it is, for `numbers`
        self.labels: list[str] = []  # of arrays
        self.constants: dict[Any, Any] = {}  # numbers that are not, by place
        self.tokens: list[Any] = []
        self.trainable: list[bool] = []  # by array
        self._array_index: dict[int, int] = {}
        self._boxes: dict[tuple[int, str], Box | Opaque] = {}
        self._phase = "argument"  # the function's own copy of an argument has no derivative
        self._globals: dict[tuple[int, str], Box] = {}
        self._named: set[tuple[int, str, str]] = set()
        self._times: Counter[str] = Counter()  # how often a label came
        self._count = 0
        self._grown = False
        self.fixed_codes: set[int] = set()  # code objects that may run as they are
        self.fixed_boxes: list[Box] = []  # and what they could write to
        self.unlooked: dict[int, str] = {}  # code of methods that nobody mentions: their names
        self.fixed_data = False  # whether they read numbers or arrays
        self.remembering = False  # and whether JAX remembers traces of some of them
        self._inside = 0  # > 0 below a Module
        self._train = True  # whether arrays here may be trained
        self._whole = 0  # > 0 in an argument: every attribute counts
        self._real = False  # numbers here are arguments to differentiate
        self.real: dict[int, Num] = {}

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.tokens)

    def take(self, value: Any, label: str) -> Spec:
        """The spec of any value; `Capture` knows them all."""
        raise NotImplementedError

    # -- arrays, numbers, constants

    def _array(self, value: Any, label: str) -> Spec:
        if isinstance(value, Tracer):
            raise Sidestep(f"`{label}` belongs to another JAX transformation that is running")
        numpy = not isinstance(value, jax.Array)
        if numpy and (
            value.dtype.hasobject or value.dtype.kind in "SUVMm" or type(value) is not np.ndarray
        ):
            return self._opaque(value, label)
        if self._fixed:
            return self._fixed_array(value, label, numpy)
        index = self._array_index.get(id(value))
        if index is not None:
            self.trainable[index] |= self._train
            self.tokens.append((label, "tied", index, self._train))
            return Tied(value, label, index)
        index = self._array_index[id(value)] = len(self.arrays)
        self.arrays.append(value)
        self.labels.append(label)
        self.trainable.append(self._train)
        weak = False if numpy else value.aval.weak_type
        dtype = jax.dtypes.canonicalize_dtype(value.dtype) if numpy else value.dtype
        self.tokens.append((label, "array", value.shape, dtype, weak, self._train))
        return Arr(value, label, index, numpy, bool(self._inside))

    def _fixed_array(self, value: Any, label: str, numpy: bool) -> Spec:
        """An array that is reached only through a class: a constant, NumPy's by content."""
        self.fixed_data = True
        if not numpy:
            return self._const(value, label, identical=True)
        if value.nbytes > _MOST_BYTES:
            raise Sidestep(
                f"a method reads the NumPy array `{label}`; make it a jnp array or an attribute"
            )
        box = self.box(value, label, boxes.ARRAY, value.shape, value.dtype, value.tobytes())
        box.checks.append(("same_array({v}, {k})", value.copy()))
        return box

    def _number(self, value: Any, label: str) -> Spec:
        place = (label, self._times[label])  # labels are for people: two closures share one
        self._times[label] += 1
        if self._real and not self._fixed and isinstance(value, (float, np.floating)):
            return self._real_input(value, label, place)
        if isinstance(value, np.generic) and value.dtype.kind not in "biufc":
            if value.dtype.kind == "V":  # a view into an array of records
                return self._opaque(value, label)
            return self._const(value, label, identical=False)
        if self.promotes and self.numbers.get(place) == INPUT and _fits(value):
            return self._input(value, label, place)
        self.tokens.append((label, "number", static_key(value)))
        self.fixed_data |= self._fixed
        if not self._fixed and not isinstance(value, (bool, np.bool_)):
            self.constants[place] = value
        return Num(value, label, None)

    def _real_input(self, value: Any, label: str, place: Any) -> Num:
        """A number to differentiate by."""
        spec = self._input(value, label, place)
        spec.real = True
        self.real[len(self.values) - 1] = spec
        return spec

    def _input(self, value: Any, label: str, place: Any) -> Num:
        self.tokens.append((label, "input", type(value)))
        self.values.append(value)
        self.places.append(place)
        return Num(value, label, len(self.values) - 1)

    def _const(self, value: Any, label: str, *, identical: bool) -> Const:
        self.tokens.append((label, "value", Is(value) if identical else static_key(value)))
        if isinstance(value, decimal.Decimal):
            self.tokens.append(("the decimal context", "value", decimal_context()))
        self.fixed_data |= self._fixed and not identical
        return Const(value, label, identical)

    def _opaque(self, value: Any, label: str) -> Opaque:
        if self._fixed:
            raise Sidestep(f"a method names `{label}`, which cannot be compared between calls")
        if "type()" in self.names:  # of a stand-in it would be another
            raise Sidestep(f"it may ask for the type of `{label}`, which cannot be compared")
        self._count += 1
        self.tokens.append((label, "opaque", Is(type(value))))
        spec = self._boxes[id(value), self._phase] = Opaque(value, label, self._count)
        return spec

    # -- everything with parts

    def box(self, value: Any, label: str, how: How, *token: Any) -> Box:
        """Start a box: its type is checked and it can be referred to from below."""
        self._count += 1
        if self._count > _MOST_BOXES:
            raise Sidestep(f"it reads more than {_MOST_BOXES} containers and objects")
        spec = Box(value, label, self._count, how, self._fixed)
        self._boxes[id(value), self._phase] = spec
        if self._fixed and how.now is not None:
            self.fixed_boxes.append(spec)
        self.tokens.append((label, how.name, Is(type(value)), *token))
        spec.checks.append(("type({v}) is {k}", type(value)))
        return spec

    def conflicts(self) -> set[int]:
        """What is both copied and reached as it is: `is` would tell the two apart."""
        fixed = {i for i, phase in self._boxes if phase == FIXED_PHASE}
        return {
            i
            for (i, phase), spec in self._boxes.items()
            if phase != FIXED_PHASE and i in fixed and i not in self.pinned
            if isinstance(spec, Box) and _may_be_pinned(spec, phase)
        }

    def mark(self) -> Any:
        """Where the walk stands, for `back`."""
        sizes = len(self.tokens), len(self._boxes), len(self.fixed_boxes)
        return sizes, self._phase, set(self.fixed_codes), dict(self._globals), set(self._named)

    def back(self, mark: Any) -> None:
        """Forget what was found since, below a class: it turned out not to be comparable."""
        (tokens, n_boxes, fixed), self._phase, self.fixed_codes, self._globals, self._named = mark
        del self.tokens[tokens:], self.fixed_boxes[fixed:]
        for key in list(self._boxes)[n_boxes:]:
            del self._boxes[key]
        raised.reason, raised.learn = None, ()

    @property
    def _fixed(self) -> bool:
        """Whether the walk is below a class: what is found runs as it is, and is constant."""
        return self._phase == FIXED_PHASE

    @property
    def promotes(self) -> bool:
        """Whether numbers may become inputs: not where code asks for their type."""
        return not self._fixed and self.names.isdisjoint(_TYPE_QUESTIONS)

    def asks_type(self, function: Any) -> None:
        """Note that a package's function asks for a type: of an input it would be another."""
        code = getattr(function, "__code__", None)
        if code is not None and "type" in reads_of(code).globals and "type()" not in self.names:
            self.names.add("type()")
            self._grown = True

    def mention(self, reads: Reads) -> None:
        """Note the attribute names that reached code uses, and questions it asks."""
        asked = _ASKING & set(reads.globals)
        if not self._fixed:
            asked -= {"isinstance"}  # the copies have one of their own
        names = reads.names | {f"{name}()" for name in asked}
        if not names <= self.names:
            self.names |= names
            self._grown = True


def _may_be_pinned(box: Box, phase: str) -> bool:
    """Whether a thing may be used as it is, so that it is one thing for all code.

    An argument that holds arrays may not: its arrays have derivatives.
    """
    if box.how not in boxes.APART or isinstance(box.value, Module):
        return False
    return phase == "captured" or not _holds_arrays(box, set())


def _holds_arrays(spec: Spec, seen: set[int]) -> bool:
    if not isinstance(spec, Box) or spec.number in seen:
        return isinstance(spec, (Arr, Tied))
    seen.add(spec.number)
    return any(_holds_arrays(part, seen) for _, _, part in spec.parts)


def _fits(value: Any) -> bool:
    """Whether a number may be an input: an int must fit in 32 bits."""
    return not isinstance(value, int) or -(2**31) <= value < 2**31
