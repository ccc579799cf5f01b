"""The optimiser's state as a tree of the model's shape.

A `Leaf` stands for one trained array: its rule, its state, whether it is frozen. The
arrays of all leaves that one `setup` made lie in one `Store`, flat, as the compiled step
takes and gives them; step counts share one vector. A leaf only knows its places there,
so a step costs one list in and one list out, and putting the results into place is one
assignment that nothing can interrupt halfway.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._between import read_between, readers, stepping, wait
from fluxax._compile._dispatch import duplicate
from fluxax._errors import short
from fluxax._jax import beside, is_key, is_tracer
from fluxax._module import run
from fluxax.optimisers._arrays import can_hold
from fluxax.optimisers._hyper import value_at
from fluxax.optimisers._rule import changed, check_rule, is_number, name_of
from fluxax.optimisers._views import timed


class Slot(NamedTuple):
    """Where one state array of a leaf lies: array number `i` of the store, or step count `i`.

    With `row`, the leaf is small and shares the array with others of its size and rule: its
    numbers are the first of that row.
    """

    sort: str  # "array" or "count"
    i: int
    row: int | None = None


class Shared:
    """A state array that several leaves have in common: they get one slot."""

    def __init__(self, value: Any):
        self.value = value
        self.slot: Slot | None = None


class Store:
    """The state arrays of one `setup`: what lies flat, and the vector of step counts."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.counts: Any = np.zeros(0, np.int32)
        self.shared = False  # somebody else may hold the arrays, so they must not be donated
        self.inside = run.trace is not None  # made inside an objective, and a part of it

    def place(self, value: Any) -> Slot:
        """Put one state array in; one that leaves have in common, once."""
        if isinstance(value, Shared):
            value.slot = value.slot or self.place(value.value)
            return value.slot
        if np.shape(value) == () and jnp.issubdtype(value.dtype, np.integer):
            self.counts = joined(self.counts, value)
            return Slot("count", len(self.counts) - 1)
        self.arrays.append(
            jax.device_put(np.array(value)) if not isinstance(value, jax.Array) else value
        )
        return Slot("array", len(self.arrays) - 1)

    def read(self, slot: Slot, shape: tuple[int, ...]) -> Any:
        """The state array in a slot."""
        if slot.sort == "count":
            return jnp.asarray(self.counts[slot.i])
        if slot.row is None:
            return self.arrays[slot.i]
        return self.arrays[slot.i][slot.row, : math.prod(shape)].reshape(shape)

    def write(self, new: list[tuple[Slot, Any]]) -> None:
        """Put other arrays into slots, all by one assignment."""
        arrays, counts = list(self.arrays), self.counts
        for slot, value in new:
            if slot.sort == "count":
                counts = jnp.asarray(counts).at[slot.i].set(value)
                continue
            old = arrays[slot.i]
            value = value if value.dtype == old.dtype else value.astype(old.dtype)
            if slot.row is not None:
                value = old.at[slot.row, : value.size].set(value.ravel())
            arrays[slot.i] = value
        self.arrays, self.counts, self.shared = arrays, counts, True

    def owned(self) -> None:
        """Make sure that nobody else holds the arrays, so that a program may use their memory."""
        if readers:
            wait()
        if self.shared:
            copied = lambda a: duplicate(a) if is_key(a) else jnp.array(a, copy=True)
            self.arrays = list(map(copied, self.arrays))
            self.counts = jnp.array(self.counts, copy=True)
            self.shared = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        return read_between(self._copy, memo)

    def _copy(self, memo: dict[int, Any]) -> Store:
        new = memo[id(self)] = Store()
        new.inside = self.inside
        new.arrays, new.counts = list(self.arrays), self.counts
        self.shared = new.shared = True
        return new

    def __getstate__(self) -> dict[str, Any]:
        return read_between(self._given)

    def _given(self) -> dict[str, Any]:
        self.shared = True  # whoever pickles looks at the arrays later
        return dict(self.__dict__)


def joined(counts: Any, more: Any) -> Any:
    """Step counts and further ones, on the host; inside an objective as what is traced there."""
    if is_tracer(counts) or is_tracer(more):
        return jnp.append(jnp.asarray(counts), jnp.asarray(more)).astype(np.int32)
    return np.append(np.asarray(counts), np.asarray(more)).astype(np.int32)


class Scheduled:
    """A schedule as it prints: its value now, and where that comes from."""

    def __init__(self, schedule: Any, step: int):
        self.schedule, self.step = schedule, step

    def __repr__(self) -> str:
        return f"{float(self.schedule(self.step)):.6g} by {name_of(self.schedule)}({self.step})"


class Token:
    """What a compiled plan remembers of a leaf: its identity, without holding its arrays."""

    __slots__ = ("__weakref__",)


class Leaf:
    """The state of one trained array.

    Attributes:
        rule: the rule, a copy of its own; `leaf.rule.eta = 0.1` works like `adjust`.
        state: what the rule's `init` gave and its `apply` keeps: arrays in a tuple, or `None`.
        frozen: whether the array is left alone.
        steps: how many steps the array has taken.
        now: the rule with schedules replaced by their present values.
    """

    def __init__(self, rule: Any, x: Any, store: Store, where: str, state: Any, place: Any = None):
        self._rule, self._frozen, self.store = rule, False, store
        self.where, self.shape, self.dtype = where, tuple(x.shape), x.dtype
        self.place = place  # among the others, if its rule wants to know
        self.token = Token()
        self.clock = 0  # which of the store's counts says how many steps were taken
        flat, self.structure = jax.tree.flatten(state)
        self.slots = [store.place(_first(rule, value, where)) for value in flat]

    @property
    def rule(self) -> Any:
        return self._rule

    @rule.setter
    def rule(self, rule: Any) -> None:
        check_rule("Leaf", rule)
        if type(rule) is not type(self._rule):
            raise ValueError(
                f"The leaf at {self.where} expects a rule of its own sort, got {short(rule)} for "
                f"{short(self._rule)}. Call setup again for that part of the model."
            )
        self._rule = rule
        changed()

    @property
    def steps(self) -> Any:
        """How many steps the array has taken, on the device: `int(steps)` waits for it."""
        return read_between(lambda: jnp.asarray(self.store.counts[self.clock]))

    @property
    def now(self) -> Any:
        """The rule as it is for the next step: schedules replaced by their values, not waited for.

        `leaf.now.eta` is a number, or of a schedule an array on the device.
        """
        steps = self.steps
        return timed(self._rule, lambda f: jnp.asarray(value_at(f, steps)))

    @property
    def frozen(self) -> bool:
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        if value != self._frozen:
            self._frozen = bool(value)
            changed()

    @property
    def state(self) -> Any:
        return read_between(self._shared_state)

    def _shared_state(self) -> Any:
        self.store.shared = True  # the caller may keep them
        return self.peek()

    @state.setter
    def state(self, value: Any) -> None:
        flat, structure = jax.tree.flatten(value)
        if structure != self.structure:
            raise ValueError(
                f"The leaf at {self.where} expects a state of {self.structure.num_leaves} arrays "
                f"as its rule makes it, got {short(value)}."
            )
        wanted = jax.tree.leaves(self.abstract_state())
        new = list(map(self._fitting, flat, wanted))
        self.store.write(list(zip(self.slots, new, strict=True)))

    def _fitting(self, value: Any, wanted: Any) -> Any:
        """A new state array, if it is one that can stand in an old one's place."""
        array = jnp.asarray(value) if _tree.is_array(value) or is_number(value) else None
        if array is None or array.shape != wanted.shape or not can_hold(wanted.dtype, array.dtype):
            raise ValueError(
                f"The leaf at {self.where} expects {short(wanted)} in its state, "
                f"got {short(value)}."
            )
        return array

    def peek(self) -> Any:
        return jax.tree.unflatten(
            self.structure, [self.store.read(slot, self.shape) for slot in self.slots]
        )

    def abstract_state(self) -> Any:
        """The shapes and dtypes of the state."""
        return jax.tree.unflatten(self.structure, [self._abstract(slot) for slot in self.slots])

    def _abstract(self, slot: Slot) -> Any:
        if slot.sort == "count":
            return jax.ShapeDtypeStruct((), np.int32)
        array = self.store.arrays[slot.i]
        return jax.ShapeDtypeStruct(
            self.shape if slot.row is not None else array.shape, array.dtype
        )

    def __repr__(self) -> str:
        return read_between(self._text)

    def _text(self) -> str:
        state = jax.tree.map(short, self.peek(), is_leaf=_tree.is_array)
        shown = repr(state).replace("'", "")
        taken = int(np.asarray(self.store.counts)[self.clock])
        rule = timed(self._rule, lambda f: Scheduled(f, taken))
        marks = f"{f', steps={taken}' if taken else ''}{', frozen=True' if self._frozen else ''}"
        return f"Leaf({rule!r}, {shown}{marks})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf) or (self._rule, self._frozen) != (
            other._rule,
            other._frozen,
        ):
            return False
        return read_between(self._same_state, other)

    def _same_state(self, other: Leaf) -> bool:
        mine, theirs = jax.tree.flatten(self.peek()), jax.tree.flatten(other.peek())
        return mine[1] == theirs[1] and all(
            bool(jnp.array_equal(a, b)) for a, b in zip(mine[0], theirs[0], strict=True)
        )


def _first(rule: Any, value: Any, where: str) -> Any:
    """A state array as `init` gave it; a number as one, a whole one as a count."""
    if isinstance(value, (bool, int, float)):
        kind = np.bool_ if isinstance(value, bool) else type(value)
        return np.asarray(value, jax.dtypes.canonicalize_dtype(kind))
    if not isinstance(value, Shared) and not (_tree.is_array(value) or is_number(value)):
        raise TypeError(
            f"{type(rule).__name__} expects `init` to give a state of arrays, or None, "
            f"got {short(value)} for the array at {where}."
        )
    return value


_tree.register_kind(Leaf, None)


#: Up to this many numbers a leaf shares arrays with others: a kernel of its own costs more.
SMALL = 4096


def leaves_of(who: str, tree: Any) -> list[Leaf]:
    """The leaves of a state tree or of a part of one, tied ones once; else an error."""
    if isinstance(tree, Leaf):
        return [tree]
    found = (
        list({id(v): v for _, v in _tree.walk(tree) if isinstance(v, Leaf)}.values())
        if tree is not None
        else []
    )
    if not found and (tree is None or not isinstance(tree, _tree.Node)):
        raise TypeError(
            f"{who} expects the state tree from `setup`, got {short(tree)}. "
            "Pass `opt_state`, or a part of it."
        )
    if not found and any(_tree.is_array(v) for _, v in _tree.walk(tree)):
        raise TypeError(
            f"{who} expects the state tree from `setup`, got a Node of arrays, such as a gradient. "
            "Pass `opt_state`, or a part of it."
        )
    return found


@stepping
def merge_stores(leaves: list[Leaf]) -> None:
    """Put leaves that several `setup` calls made into one store, so that one step serves all."""
    if readers:
        wait()
    store = Store()
    offsets: dict[int, tuple[int, int]] = {}
    for old in {id(leaf.store): leaf.store for leaf in leaves}.values():
        offsets[id(old)] = len(store.arrays), len(store.counts)
        store.arrays += old.arrays
        store.counts = np.append(store.counts, np.asarray(old.counts)).astype(np.int32)
        old.shared = True  # other leaves of it may stay there
    for leaf in {id(leaf): leaf for leaf in leaves}.values():
        arrays, counts = offsets[id(leaf.store)]
        leaf.slots = [
            s._replace(i=s.i + (counts if s.sort == "count" else arrays)) for s in leaf.slots
        ]
        leaf.clock += counts
        leaf.store = store
    store.counts = beside(store.counts, store.arrays[0] if store.arrays else None)
    store.shared = True
