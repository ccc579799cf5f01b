"""The optimiser's state as a tree of the model's shape.

A `Leaf` stands for one trained array: its rule, its state, whether it is frozen. The
arrays of all leaves that one `setup` made lie in one `Store`, flat, as the compiled step
takes and gives them; step counts share one vector. A leaf only knows its places there,
so a step costs one list in and one list out, and putting the results into place is one
assignment that nothing can interrupt halfway.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax._parameters import trainable_arrays
from fluxax.optimisers._rule import changed, check_rule


class Store:
    """The state arrays of one `setup`: what lies flat, and the vector of step counts."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.counts: Any = None  # int32[n]
        self.shared = False  # somebody else may hold the arrays, so they must not be donated

    def owned(self) -> None:
        """Make sure that nobody else holds the arrays, so that a program may use their memory."""
        if self.shared:
            self.arrays = [_copy(a) for a in self.arrays]
            self.counts = _copy(self.counts)
            self.shared = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        new = memo[id(self)] = Store()
        new.arrays, new.counts = list(self.arrays), self.counts
        self.shared = new.shared = True
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shared": True}


def _copy(array: Any) -> Any:
    return jnp.array(array, copy=True)


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
        flat, self.structure = jax.tree.flatten(rule.init(x))
        self.slots = [_place(store, value, x) for value in flat]

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
                f"The leaf at {self.where} expects a state of {self.structure.num_leaves} arrays as its "
                f"rule makes it, got {short(value)}."
            )
        for (sort, i), new in zip(self.slots, flat, strict=True):
            if sort == "count":
                self.store.counts = self.store.counts.at[i].set(new)
            else:
                self.store.arrays[i] = jnp.asarray(new, self.store.arrays[i].dtype)
        self.store.shared = True

    def _state(self) -> Any:
        values = [self.store.counts[i] if sort == "count" else self.store.arrays[i] for sort, i in self.slots]
        return jax.tree.unflatten(self.structure, values)

    def abstract_state(self) -> Any:
        """The shapes and dtypes of the state."""
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), self._state())

    def __repr__(self) -> str:
        state = jax.tree.map(short, self._state(), is_leaf=_tree.is_array)
        shown = repr(state).replace("'", "")
        return f"Leaf({self._rule!r}, {shown}{', frozen=True' if self._frozen else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf) or (self._rule, self._frozen) != (other._rule, other._frozen):
            return False
        mine, theirs = jax.tree.flatten(self._state()), jax.tree.flatten(other._state())
        return mine[1] == theirs[1] and all(
            bool(jnp.array_equal(a, b)) for a, b in zip(mine[0], theirs[0], strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by content


def _place(store: Store, value: Any, x: Any) -> tuple[str, int]:
    """Put one state array into the store; where it lies."""
    if np.shape(value) == () and np.issubdtype(np.asarray(value).dtype, np.integer):
        counts = [] if store.counts is None else np.asarray(store.counts).tolist()
        store.counts = np.asarray([*counts, int(value)], np.int32)
        return "count", len(counts)
    store.arrays.append(_copy(value) if value is x or not isinstance(value, jax.Array) else value)
    return "array", len(store.arrays) - 1


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
        raise TypeError("setup expects a rule and a model, got a state tree. Write setup(rule, model).")
    store = Store()
    leaves: dict[int, Leaf] = {}
    wanted = {path: a for path, a in trainable_arrays(model)}

    def leaf(path: _tree.Path, value: Any) -> Leaf | None:
        if path not in wanted:
            return None
        if is_tracer(value):
            raise TypeError("setup expects concrete arrays, got a traced one. Call it outside of jax.jit.")
        if id(value) not in leaves:
            leaves[id(value)] = Leaf(_fresh(rule), value, store, _tree.path_string(path))
        return leaves[id(value)]

    tree = _tree.mirror(model, leaf)
    store.counts = jax.device_put(np.zeros(0, np.int32) if store.counts is None else store.counts)
    if not leaves:
        warnings.warn(
            f"setup found no trainable array in {short(model)}: nothing will be trained. "
            "Trained are floating and complex arrays.",
            stacklevel=2,
        )
    return tree


def _fresh(rule: Any) -> Any:
    """A copy of a rule; of nested ones too."""
    return copy.deepcopy(rule)


def _is_state(tree: Any) -> bool:
    return any(isinstance(v, Leaf) for _, v in _tree.walk(tree))


def leaves_of(who: str, tree: Any) -> list[Leaf]:
    """The leaves of a state tree or of a part of one, tied ones once; an error for anything else."""
    if isinstance(tree, Leaf):
        return [tree]
    found = list({id(v): v for _, v in _tree.walk(tree) if isinstance(v, Leaf)}.values()) if tree is not None else []
    if not found and (tree is None or not isinstance(tree, _tree.Node)):
        raise TypeError(
            f"{who} expects the state tree from `setup`, got {short(tree)}. Pass `opt_state`, or a part of it."
        )
    return found
