"""update: one compiled program for the rules of the whole tree."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from itertools import starmap
from operator import setitem
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._between import readers, stepping
from fluxax._compile._dispatch import Donating, ShapeMiss, no_leaks, watching
from fluxax._compile._program import at_clear
from fluxax._gradient import FlatGradient
from fluxax._implicit._params import Params
from fluxax._implicit._styles import check_held, check_update
from fluxax._jax import is_tracer, trace_settings
from fluxax._module import run
from fluxax._parameters import put
from fluxax.kernels import options_for
from fluxax.optimisers import _apply, _programs
from fluxax.optimisers._gather import Gather, gradient_gather, make_gather
from fluxax.optimisers._match import match_gradient, match_model
from fluxax.optimisers._remember import remembered
from fluxax.optimisers._rule import free_numbers, version
from fluxax.optimisers._state import Leaf, Store, merge_stores
from fluxax.optimisers._widen import widened


class Group:
    """The distinct leaves of a state tree, what of them shapes a program, and their numbers now."""

    def __init__(self, leaves: list[Leaf], extra: Any = None):
        self.rules = [leaf.rule for leaf in leaves]
        for leaf in leaves:
            _programs.settle_view(leaf.rule, leaf)
        self.seen = version.structure, version.now
        self.fixed = any(map(_programs.has_constants, self.rules))
        # `extra` is whatever else of the leaves shapes a program
        signatures = tuple((_programs.signature(leaf), leaf.frozen) for leaf in leaves)
        self.key = (extra, signatures, _programs.meeting_key(leaves))
        self.watched = _programs.all_watched(self.rules)
        # by program, of which others may have the same id later: itself, version and vector
        self.vectors: dict[int, tuple[Any, int, Any]] = {}

    @property
    def stale(self) -> bool:
        """Whether something changed, somewhere, that may ask for another program."""
        return self.seen[0] != version.structure or (self.fixed and self.seen[1] != version.now)

    def vector(self, numbers: _programs.Numbers, chosen: list[int] | None = None) -> Any:
        """The hyperparameters for a program (of chosen leaves); made anew when a rule changed."""
        found = self.vectors.get(id(numbers))
        if found is None or found[0] is not numbers or found[1] != version.now or not self.watched:
            rules = self.rules if chosen is None else [self.rules[k] for k in chosen]
            found = self.vectors[id(numbers)] = (numbers, version.now, numbers.vector(rules))
        return found[2]


def whole(call: Any, arguments: tuple[Any, ...], commit: Any) -> Any:
    """Run a program and put its results into place, as `commit` does: both happen or neither.

    The program takes over the memory of its states, so its results must not get lost. `extend`
    keeps them inside C code, before Python looks at signals; `commit` may run twice.
    """
    results: list[Any] = []
    try:
        results.extend(starmap(call, (arguments,)))
        return commit(results[0])
    except BaseException:
        while results:
            try:
                commit(results[0])
                results.clear()
            except KeyboardInterrupt:  # again, while we were at it
                continue
        raise


class Update:
    """The compiled update of leaves of certain signatures with gradients at certain places."""

    def __init__(self, leaves: list[Leaf], places: list[list[int]]):
        self.templates = [_programs.template(leaf) for leaf in leaves]
        self.places = places  # by leaf: which gradients are summed for it
        self.numbers = _programs.Numbers(_programs.size_for([leaf.rule for leaf in leaves]))
        self.rearm()

    def rearm(self) -> None:
        """Be traced anew at the next call, for what that has."""
        self.step = Donating(self._run, "update", (2, 3), options_for())
        self.call = self.step.call
        self.form: Any = None  # what it was traced for

    def _run(self, xs: Any, grads: Any, arrays: Any, counts: Any, vector: Any) -> Any:
        form = trace_settings(), [(jnp.shape(x), jnp.result_type(x)) for x in (*xs, *grads)]
        if self.form not in (None, form):  # the wrong gradient, perhaps; the slow way knows
            raise ShapeMiss
        summed = [
            _total([widened(grads[k]) for k in at]).astype(widened(x).dtype)
            for x, at in zip(xs, self.places, strict=True)
        ]
        inputs = _apply.Inputs(vector, arrays, counts)
        new = _apply.apply_rules(self.templates, self.numbers, inputs, xs, summed)
        self.form = form
        return new

    def settle(self, *arguments: Any) -> None:
        """Trace the step, which says which hyperparameters the program takes."""
        self.step.trace(*arguments, self.numbers.placeholder())

    def inline(self, rules: list[Any], xs: Any, grads: Any, arrays: Any, counts: Any) -> Any:
        """The same step as a part of what is being traced."""
        with no_leaks():
            jax.eval_shape(self._run, xs, grads, arrays, counts, self.numbers.placeholder())
        return self._run(xs, grads, arrays, counts, self.numbers.vector(rules))


def _total(grads: list[Any]) -> Any:
    return jnp.asarray(sum(grads[1:], grads[0]))


class Plan(NamedTuple):
    """How to run one `update` again without looking at everything; it goes when the state does."""

    tree: Gather
    model: Gather
    grad: Gather | None
    flat: tuple[Any, list[int]] | None  # for a gradient nobody looked at: program (weak), positions
    group: Group
    store: Callable[[], Store | None]  # weak
    program: Update
    which: list[int]  # by place in the model: which leaf
    firsts: list[int]  # by leaf: its first place
    plain: bool  # whether every leaf has one place, in order


_recent: list[Plan] = []
_RECENT = 8
at_clear(_recent.clear)


def _forget(store: Any) -> None:
    """The plans of a state that is gone go with it."""
    _recent[:] = [plan for plan in _recent if plan.store is not store]


_NO_GRADIENT = object()


def update(opt_state: Any, model: Any, grad: Any = _NO_GRADIENT) -> tuple[Any, Any]:
    """One step: the rules turn the gradient into new parameters, which are put into the model.

    Args:
        opt_state: the state tree from `setup`, or a node of it; changed in place. With `Params`: an
            optimisation rule, which remembers their state itself.
        model: the model, or the same part of it; changed in place as deep as its containers allow.
            Or `Params`.
        grad: what `gradient` gave for it, or anything nested alike. Where it is `None`, the
            parameter and its state stay as they are; zeros are a step.

    Returns:
        `(opt_state, model)`, for models that cannot be changed in place.

    Raises:
        ValueError: if the three do not belong together; nothing is changed then.
        TypeError: if they belong to different styles, or there is no gradient.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"w": jnp.array([1.0, 2.0])}
        >>> opt_state = fx.setup(fx.Descent(0.1), model)
        >>> _ = fx.update(opt_state, model, {"w": jnp.array([1.0, 0.0])})
        >>> model["w"]
        Array([0.9, 2. ], dtype=float32)
    """
    if grad is _NO_GRADIENT:
        raise TypeError(
            "update expects the gradient as a third argument, got none: none is kept in the model, "
            "as after a backward pass of PyTorch. Write grads = fx.gradient(f, model) and "
            "fx.update(opt_state, model, grads[0])."
        )
    if type(model) is Params:
        return _by_params(opt_state, model, grad)
    if run.trace is not None:
        return _inside(opt_state, model, grad)
    for plan in _recent:
        got = _gathered(plan, opt_state, model, grad)
        if got is not None:
            try:
                return opt_state, _run(plan, got, model)
            except ShapeMiss:  # a gradient of other shapes or types, which may be a wrong one
                break
    return _slowly(opt_state, model, grad)


def _by_params(opt: Any, ps: Params, gs: Any) -> tuple[Any, Any]:
    """The implicit style: the rule remembers the state of the parameters."""
    check_update(opt, ps, gs)
    live = ps.live()
    check_held(gs.arrays, gs.alone)
    grads = gs.at(live.order)
    for i, array in enumerate(live):
        if type(array) is np.ndarray:  # a copy: its memory is written to afterwards
            list.__setitem__(live, i, jnp.array(array))
    if live:
        update(remembered("update", opt, live), live, grads)
    return opt, ps


def _gathered(plan: Plan, opt_state: Any, model: Any, grad: Any) -> Any:
    """The store, the parameters, their owners and the gradients, if the plan is for these."""
    leaves = plan.tree.read(opt_state)
    store = None if leaves is None else leaves[0][0].store
    if store is None or plan.store() is not store:
        return None
    if plan.group.stale:  # a part was frozen or thawed, or a rule asks for another program
        _recent[:] = [p for p in _recent if p is not plan]
        return None
    found = plan.model.read(model)
    if found is None:
        return None
    pending = grad.__dict__.get("__pending__") if type(grad) is _tree.Node else None
    if pending is not None and type(pending) is FlatGradient:
        if plan.flat is None or plan.flat[0]() is not pending.program:
            return None
        return store, found[0], found[1], [pending.flat[k] for k in plan.flat[1]]
    grads = None if plan.grad is None else plan.grad.read(grad)
    return None if grads is None else (store, found[0], found[1], grads[0])


@stepping
def _run(plan: Plan, got: Any, model: Any) -> Any:
    """Run the program and put the results into place; `ShapeMiss` if it is for other arrays."""
    store, arrays, owners, grads = got
    program = plan.program
    xs = arrays if plan.plain else [arrays[k] for k in plan.firsts]
    if readers or store.shared:
        store.owned()
    if program.numbers.pack is None:
        program.settle(xs, grads, store.arrays, store.counts)
    arguments = (xs, grads, store.arrays, store.counts, plan.group.vector(program.numbers))
    call = program.step.watched if watching() else program.call
    return whole(call, arguments, partial(_commit, plan, store, owners, arrays, model))


def _commit(
    plan: Plan, store: Store, owners: list[Any], old: list[Any], model: Any, result: Any
) -> Any:
    """Put new parameters and states into place; the model, or a new one if it can't be changed."""
    store.arrays, store.counts, xs = result
    if plan.model.settable:
        new = xs if plan.plain else [xs[k] for k in plan.which]
        any(map(setitem, owners, plan.model.keys, new))
        return model
    by_old = {id(a): xs[k] for a, k in zip(old, plan.which, strict=True)}
    return put(model, lambda _, a: by_old.get(id(a), a))


# --- inside an objective -------------------------------------------------------------------


def _inside(opt_state: Any, model: Any, grad: Any) -> tuple[Any, Any]:
    """A step that is part of an objective, and is differentiated through with it."""
    check_update(opt_state, model, grad)
    found = match_model("update", opt_state, model)
    grads = match_gradient("update", opt_state, grad, model)
    moving = [(path, leaf, array) for path, leaf, array in found if not leaf.frozen]
    given = [array for _, _, array in moving] + list(grads.values())
    states = [a for _, leaf, _ in moving for a in (*leaf.store.arrays, leaf.store.counts)]
    numbers = [v for _, leaf, _ in moving for v in free_numbers(leaf.rule)]
    if not any(map(is_tracer, (*given, *states, *numbers))):
        return _slowly(opt_state, model, grad)
    outer = [path for path, leaf, _ in moving if not leaf.store.inside]
    if outer:
        raise TypeError(
            "update expects a state that was made in the objective where it is called in one, got "
            f"one from outside at {_tree.path_string(outer[0])}. Call update after gradient; or "
            "call setup inside, for a copy of the model."
        )
    new: dict[int, Any] = {}
    for store in {id(leaf.store): leaf.store for _, leaf, _ in moving}.values():
        mine = [
            (path, leaf, a) for path, leaf, a in moving if leaf.store is store and path in grads
        ]
        new.update(_stepped(store, mine, grads))
    return opt_state, put(model, lambda _, a: new.get(id(a), a))


def _stepped(
    store: Store, found: list[tuple[_tree.Path, Leaf, Any]], grads: dict[_tree.Path, Any]
) -> dict[int, Any]:
    """New arrays for the leaves of one store, by the old one's identity."""
    leaves = list({id(leaf): leaf for _, leaf, _ in found}.values())
    for leaf in leaves:
        _programs.settle_view(leaf.rule, leaf)
    places = [[k for k, (_, leaf, _) in enumerate(found) if leaf is mine] for mine in leaves]
    xs = [found[at[0]][2] for at in places]
    step, values = Update(leaves, places), [grads[path] for path, _, _ in found]
    inputs = (list(map(jnp.asarray, xs)), values, store.arrays, jnp.asarray(store.counts))
    store.arrays, store.counts, new = step.inline([leaf.rule for leaf in leaves], *inputs)
    return {id(x): n for x, n in zip(xs, new, strict=True)}


# --- the slow way -------------------------------------------------------------------------


def _slowly(opt_state: Any, model: Any, grad: Any) -> tuple[Any, Any]:
    """Check everything, then make a plan."""
    check_update(opt_state, model, grad)
    found = match_model("update", opt_state, model)
    pending = grad.__dict__.get("__pending__") if type(grad) is _tree.Node else None
    grads = match_gradient("update", opt_state, grad, model)
    if not found:
        return opt_state, model
    if any(isinstance(array, np.ndarray) for _, _, array in found):
        mine = {id(array) for _, _, array in found}
        model = put(model, lambda _, a: jnp.asarray(a) if id(a) in mine else a)
        return _slowly(opt_state, model, grad)
    if len({id(leaf.store) for _, leaf, _ in found}) > 1:
        merge_stores([leaf for _, leaf, _ in found])
    store = found[0][1].store
    plan = _make_plan(opt_state, model, grad, grads, found, store, pending)
    if plan is None:
        return opt_state, model
    arrays, owners = plan.model.read(model)
    values = [grads[path] for path, leaf, _ in found if path in grads and not leaf.frozen]
    try:
        model = _run(plan, (store, arrays, owners, values), model)
    except ShapeMiss:  # all was checked, so it is for these arrays that it is to be traced now
        plan.program.rearm()
        model = _run(plan, (store, arrays, owners, values), model)
    _recent.insert(0, plan)
    del _recent[_RECENT:]
    return opt_state, model


def _make_plan(
    opt_state: Any,
    model: Any,
    grad: Any,
    grads: dict[_tree.Path, Any],
    found: list[tuple[_tree.Path, Leaf, Any]],
    store: Store,
    pending: Any,
) -> Plan | None:
    """The plan for the leaves of one store that take a step; `None` if none does."""
    moving = {id(leaf) for path, leaf, _ in found if path in grads and not leaf.frozen}
    found = [(path, leaf, array) for path, leaf, array in found if id(leaf) in moving]
    if not found:
        return None
    leaves = list({id(leaf): leaf for _, leaf, _ in found}.values())
    position = {id(leaf): i for i, leaf in enumerate(leaves)}
    which = [position[id(leaf)] for _, leaf, _ in found]
    present = [path for path, _, _ in found if path in grads]
    at = {path: k for k, path in enumerate(present)}
    places = [[at[p] for p, leaf, _ in found if leaf is mine and p in at] for mine in leaves]
    group = Group(leaves)
    dtypes = tuple(array.dtype for _, _, array in found)
    sizes = len(store.arrays), store.counts.shape
    key = (group.key, dtypes, tuple(map(tuple, places)), sizes, trace_settings())
    tokens = {path: leaf.token for path, leaf, _ in found}
    return Plan(
        tree=make_gather(opt_state, tokens, lambda x, k: f"{x}.token is {k}"),
        model=make_gather(model, dict.fromkeys(tokens), lambda x, _: f"type({x}) is ArrayImpl"),
        grad=gradient_gather(grad, present) if pending is None else None,
        flat=None if pending is None else _flat_positions(pending, present, grads),
        group=group,
        store=weakref.ref(store, _forget),
        program=_programs.program_for(key, lambda: Update(leaves, places)),
        which=which,
        firsts=[which.index(i) for i in range(len(leaves))],
        plain=which == list(range(len(leaves))),
    )


def _flat_positions(pending: FlatGradient, present: list[_tree.Path], grads: Any) -> Any:
    position = {id(g): k for k, g in enumerate(pending.flat)}
    return weakref.ref(pending.program), [position[id(grads[path])] for path in present]
