"""The optimiser's state as a tree of the model's shape.

A `Leaf` stands for one trained array: its rule, its state, whether it is frozen. The
arrays of all leaves that one `setup` made lie in one `Store`, flat, as the compiled step
takes and gives them; step counts share one vector. A leaf only knows its places there,
so a step costs one list in and one list out, and putting the results into place is one
assignment that nothing can interrupt halfway.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import beside, is_tracer
from fluxax._parameters import trainable_arrays
from fluxax.optimisers._rule import changed, check_rule, fields_of, is_elementwise, rules_in


class Slot(NamedTuple):
    """Where one state array of a leaf lies: array number `i` of the store, or step count `i`.

    With `row`, the leaf is small and shares the array with others of its size and rule: its
    numbers are the first of that row.
    """

    sort: str  # "array" or "count"
    i: int
    row: int | None = None


class Store:
    """The state arrays of one `setup`: what lies flat, and the vector of step counts."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.counts: Any = np.zeros(0, np.int32)
        self.shared = False  # somebody else may hold the arrays, so they must not be donated

    def place(self, value: Any) -> Slot:
        """Put one state array in, a copy of it: `init` may have given the parameter itself."""
        if np.shape(value) == () and jnp.issubdtype(value.dtype, np.integer):
            self.counts = np.append(np.asarray(self.counts), np.int32(value))
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

    def write(self, slot: Slot, value: Any) -> None:
        """Put another array into a slot."""
        if slot.sort == "count":
            self.counts = jnp.asarray(self.counts).at[slot.i].set(value)
        elif slot.row is None:
            self.arrays[slot.i] = value.astype(self.arrays[slot.i].dtype)
        else:
            flat = value.astype(self.arrays[slot.i].dtype).ravel()
            self.arrays[slot.i] = self.arrays[slot.i].at[slot.row, : flat.size].set(flat)

    def owned(self) -> None:
        """Make sure that nobody else holds the arrays, so that a program may use their memory."""
        if self.shared:
            self.arrays = [jnp.array(a, copy=True) for a in self.arrays]
            self.counts = jnp.array(self.counts, copy=True)
            self.shared = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        new = memo[id(self)] = Store()
        new.arrays, new.counts = list(self.arrays), self.counts
        self.shared = new.shared = True
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shared": True}


class Token:
    """What a compiled plan remembers of a leaf: its identity, without holding its arrays."""

    __slots__ = ("__weakref__",)


class Leaf:
    """The state of one trained array.

    Attributes:
        rule: the rule, a copy of its own; `leaf.rule.eta = 0.1` works like `adjust`.
        state: what the rule's `init` gave and its `apply` keeps: arrays in a tuple, or `None`.
        frozen: whether the array is left alone.
    """

    def __init__(self, rule: Any, x: Any, store: Store, where: str):
        self._rule, self._frozen, self.store = rule, False, store
        self.where, self.shape, self.dtype = where, tuple(x.shape), x.dtype
        self.token = Token()
        self.clock = 0  # which of the store's counts says how many steps were taken
        flat, self.structure = jax.tree.flatten(rule.init(x))
        self.slots = [store.place(value) for value in flat]

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
    def steps(self) -> int:
        """How many steps the array has taken; reading it waits for the device."""
        return int(self.store.counts[self.clock])

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
        self.store.shared = True  # the caller may keep them
        return self._state()

    @state.setter
    def state(self, value: Any) -> None:
        flat, structure = jax.tree.flatten(value)
        if structure != self.structure:
            raise ValueError(
                f"The leaf at {self.where} expects a state of {self.structure.num_leaves} arrays "
                f"as its rule makes it, got {short(value)}."
            )
        for slot, new in zip(self.slots, flat, strict=True):
            self.store.write(slot, jnp.asarray(new))
        self.store.shared = True

    def _state(self) -> Any:
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
        state = jax.tree.map(short, self._state(), is_leaf=_tree.is_array)
        shown = repr(state).replace("'", "")
        return f"Leaf({self._rule!r}, {shown}{', frozen=True' if self._frozen else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf) or (self._rule, self._frozen) != (
            other._rule,
            other._frozen,
        ):
            return False
        mine, theirs = jax.tree.flatten(self._state()), jax.tree.flatten(other._state())
        return mine[1] == theirs[1] and all(
            bool(jnp.array_equal(a, b)) for a, b in zip(mine[0], theirs[0], strict=True)
        )


_tree.register_kind(Leaf, None)


def setup(rule: Any, model: Any) -> Any:
    """The state of an optimisation rule for every trained array of a model.

    Args:
        rule: a rule such as `Adam(1e-3)`; each leaf gets a copy of its own.
        model: any tree of arrays.

    Returns:
        A tree nested like the model, with a `Leaf` per trained array and `None` elsewhere. An
        array that stands in two places has one leaf, in both.

    Raises:
        TypeError: if `rule` is no rule.

    Example:
        >>> import fluxax as fx
        >>> opt_state = fx.setup(fx.Momentum(0.1), fx.Dense(2, 3))
        >>> opt_state.weight
        Leaf(Momentum(eta=0.1, rho=0.9), f32[2,3])
        >>> opt_state.activation
    """
    check_rule("setup", rule)
    if isinstance(model, Leaf) or _is_state(model):
        raise TypeError(
            "setup expects a rule and a model, got a state tree. Write setup(rule, model)."
        )
    store = Store()
    leaves: dict[int, Leaf] = {}
    wanted = dict(trainable_arrays(model))

    def leaf(path: _tree.Path, value: Any) -> Leaf | None:
        if path not in wanted:
            return None
        if is_tracer(value):
            raise TypeError(
                "setup expects concrete arrays, got a traced one. Call it outside of jax.jit."
            )
        if id(value) not in leaves:
            leaves[id(value)] = Leaf(_fresh(rule), value, store, _tree.path_string(path))
        return leaves[id(value)]

    tree = _tree.mirror(model, leaf)
    store.shared = any(a is x for a in store.arrays for x in wanted.values())
    share_rows(store, list(leaves.values()))
    _add_clocks(store, list(leaves.values()))
    store.counts = beside(store.counts, next(iter(wanted.values()), None))
    if not leaves:
        warnings.warn(
            f"setup found no trainable array in {short(model)}: nothing will be trained. "
            "Trained are floating and complex arrays.",
            stacklevel=2,
        )
    return tree


#: Up to this many numbers a leaf shares arrays with others: a kernel of its own costs more.
SMALL = 1024


def share_rows(store: Store, leaves: list[Leaf]) -> None:
    """Give small leaves with elementwise rules of one sort common arrays, a row each.

    On a small net a step's time goes to kernels and array handles, not to arithmetic: a step of
    2-16-2 with four leaves in one array takes half the time of one with twelve arrays.
    """
    groups: dict[Any, list[Leaf]] = {}
    for leaf in leaves:
        size = math.prod(leaf.shape)
        states = [store.arrays[s.i] for s in leaf.slots if s.sort == "array"]
        plain = all(a.shape == leaf.shape and len(a.devices()) == 1 for a in states)
        if states and size <= SMALL and plain and is_elementwise(leaf.rule):
            kinds = tuple(type(r) for r in rules_in(leaf.rule))
            devices = tuple(a.sharding if a.committed else None for a in states)
            dtypes = tuple(a.dtype for a in states)
            key = (
                kinds,
                _static_fields(leaf.rule),
                leaf.structure,
                leaf.dtype,
                dtypes,
                devices,
                _width(size),
            )
            groups.setdefault(key, []).append(leaf)
    shared = [group for group in groups.values() if len(group) > 1]
    for group in shared:
        for position in range(len(group[0].slots)):
            _share_one(store, group, position, _width(math.prod(group[0].shape)))
    _drop_unused(store, leaves)


def _width(size: int) -> int:
    return max(64, 1 << (size - 1).bit_length()) if size > 1 else 64


def _static_fields(rule: Any) -> Any:
    fields = [getattr(r, n) for r in rules_in(rule) for n in fields_of(r)]
    return tuple(v if isinstance(v, bool) or callable(v) else None for v in fields)


def _share_one(store: Store, group: list[Leaf], position: int, width: int) -> None:
    """Put one state of every leaf of a group into rows of a new array, or next to each other."""
    slots = [leaf.slots[position] for leaf in group]
    if slots[0].sort == "count":
        start = len(store.counts)
        store.counts = np.append(store.counts, [store.counts[s.i] for s in slots]).astype(np.int32)
        new = [Slot("count", start + row, row) for row in range(len(group))]
    else:
        old = [np.asarray(store.arrays[s.i]) for s in slots]
        block = np.zeros((len(group), width), old[0].dtype)
        for row, array in enumerate(old):
            block[row, : array.size] = array.ravel()
        store.arrays.append(beside(block, store.arrays[slots[0].i]))
        new = [Slot("array", len(store.arrays) - 1, row) for row in range(len(group))]
    for leaf, slot in zip(group, new, strict=True):
        leaf.slots[position] = slot


def _drop_unused(store: Store, leaves: list[Leaf]) -> None:
    """Close the gaps that shared states left."""
    used = {
        sort: sorted({s.i for leaf in leaves for s in leaf.slots if s.sort == sort})
        for sort in ("array", "count")
    }
    new = {sort: {i: k for k, i in enumerate(found)} for sort, found in used.items()}
    store.arrays = [store.arrays[i] for i in used["array"]]
    store.counts = np.asarray(store.counts)[used["count"]].astype(np.int32)
    for leaf in leaves:
        leaf.slots = [s._replace(i=new[s.sort][s.i]) for s in leaf.slots]


def _add_clocks(store: Store, leaves: list[Leaf]) -> None:
    """Give every leaf a count of its steps, for schedules; they stand before the other counts."""
    n = len(leaves)
    store.counts = np.append(np.zeros(n, np.int32), store.counts).astype(np.int32)
    for k, leaf in enumerate(leaves):
        leaf.clock = k
        leaf.slots = [s._replace(i=s.i + n) if s.sort == "count" else s for s in leaf.slots]


def _fresh(rule: Any) -> Any:
    """A copy of a rule; of nested ones too."""
    return copy.deepcopy(rule)


def _is_state(tree: Any) -> bool:
    return any(isinstance(v, Leaf) for _, v in _tree.walk(tree))


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
    return found
