"""One training step as one program: loss, gradient, rules, and the guard against bad numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from operator import setitem
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._between import at_rest, readers, stepping
from fluxax._compile import _eager
from fluxax._compile._dispatch import Donating, ShapeMiss, watching
from fluxax._compile._nest import inputs_at
from fluxax._compile._objective import first_of
from fluxax._compile._program import find, find_slowly, holds_for
from fluxax._compile._site import Found
from fluxax._compile._traced import Program
from fluxax._draws import NO_ROOT, Turn
from fluxax._gradient import warn_untouched
from fluxax._implicit._styles import check_held, check_loss
from fluxax._jax import ArrayImpl, beside
from fluxax._parameters import put
from fluxax._plans import Plan, find_plan, frozen_modules, new_purpose
from fluxax._put_back import Before
from fluxax.kernels import chosen, options_for
from fluxax.optimisers import _apply
from fluxax.optimisers._match import match_model
from fluxax.optimisers._state import SMALL, Leaf, Store
from fluxax.optimisers._update import update, whole


class Fused:
    """A compiled training step: an objective's program with the rules of some leaves behind it.

    Takes parameters, other inputs, state arrays, step counts, hyperparameters and whether the run
    is still good; gives the outputs, new parameters, state arrays and counts, states that layers
    wrote, and whether it still is. If anything is not finite all of them come out as they went in,
    except random streams, which advance unless the run had ended before.
    `at` says by leaf which input of the objective its array is.
    """

    def __init__(self, program: Program, leaves: list[Leaf], at: tuple[int, ...]):
        stepped = [k for k, i in enumerate(at) if i in program.used and not leaves[k].frozen]
        self.program = program
        self.moving = [at[k] for k in stepped]  # inputs that the step changes
        self.rules = [leaves[k].rule for k in stepped]
        self.chosen = None if len(stepped) == len(at) else stepped  # which leaves of the group
        self.templates = [_apply.template(leaves[k]) for k in stepped]
        self.numbers = _apply.Numbers(_apply.size_for(self.rules))
        parameters = program.parameters or []
        self.position = [parameters.index(i) for i in self.moving]
        places = program.places
        self.keys, self.which, self.owner_at = [], [], []
        for place, (which, key) in enumerate(zip(places.which, places.keys, strict=True)):
            if which in self.position:
                self.keys.append(key)
                self.which.append(self.position.index(which))
                self.owner_at.append(place)
        self.all_places = self.owner_at == list(range(len(places.which)))
        self.plain = self.which == list(range(len(self.moving)))
        self.written = [w.name for w in program.writes]
        self.loops: dict[Any, Any] = {}  # programs of many such steps, by what they gather
        options = options_for(program.closed, training=True)
        self.step = Donating(self.run, "trainstep", (2, 3), options, self.run_watched)
        self.call = self.step.call
        self.fresh = True

    def run(
        self, parameters: Any, others: Any, arrays: Any, counts: Any, vector: Any, alive: Any
    ) -> Any:
        """The step; to be traced."""
        return self.run_watched(parameters, others, arrays, counts, vector, alive)[0]

    def run_watched(
        self, parameters: Any, others: Any, arrays: Any, counts: Any, vector: Any, alive: Any
    ) -> Any:
        """The step, and its gradients, where bad numbers can be that the guard keeps back."""
        program = self.program
        inputs = program.merged(parameters, others)
        outs, grads = program.value_and_grads(inputs, self.moving)
        good = alive & _finite([outs[0], *grads])
        xs = [inputs[i] for i in self.moving]
        held = _apply.Inputs(vector, arrays, counts, good)
        new = _apply.apply_rules(self.templates, self.numbers, held, xs, grads)
        states = _held(program, inputs, outs, good, alive)
        return (*new, outs[: program.n_outputs], states, good), grads

    def settle(self, *arguments: Any) -> None:
        """Trace the step, which says which hyperparameters the program takes."""
        self.step.trace(*arguments[:4], self.numbers.placeholder(), arguments[4])


def _finite(values: list[Any]) -> Any:
    """Whether all numbers are finite: 0 · x is 0 just then, and zeros add up without overflow.

    Small arrays are looked at together, one kernel for all of them. On a CPU a product with zeros
    reads large ones at the speed of memory, where a sum takes 1.7 times as long.
    """
    small: dict[Any, list[Any]] = {}
    for v in values:
        if v.size <= SMALL:
            small.setdefault(v.dtype, []).append(jnp.ravel(v))
    # the barrier keeps XLA from taking the concatenation apart again, a sum for each piece
    joined = [lax.optimization_barrier(jnp.concatenate(vs)) * 0 for vs in small.values()]
    zeros = joined + [_zeros(v) for v in values if v.size > SMALL]
    return sum(jnp.abs(jnp.sum(z)).astype(jnp.float32) for z in zeros) == 0


def _zeros(array: Any) -> Any:
    """Zeros for rows of finite numbers, NaN for others."""
    wide = array.ndim > 1 and array.shape[-1] >= 32 and array.dtype in (np.float32, np.float64)
    if not (wide and chosen()):
        return array * 0
    rows = array.reshape(-1, array.shape[-1])
    # behind the barrier XLA does not know that these are zeros
    return rows @ lax.optimization_barrier(jnp.zeros(rows.shape[1], rows.dtype))


def _held(program: Program, inputs: list[Any], outs: list[Any], good: Any, alive: Any) -> list[Any]:
    held = []
    for new, write in zip(outs[program.n_outputs :], program.writes, strict=True):
        floating = jnp.issubdtype(new.dtype, np.inexact)
        old = None if write.input is None else inputs[write.input]
        held.append(new if old is None else jnp.where(good if floating else alive, new, old))
    return held


_true: list[Any] = []


def _always(store: Store) -> Any:
    """The flag of a run in which nothing went wrong, where the state lies."""
    counts = store.counts
    if type(counts) is ArrayImpl and counts.committed:
        return beside(np.True_, counts)
    if not _true:
        _true.append(jax.device_put(np.True_))
    return _true[0]


#: What a step gives: its value, whether all was finite (a device array, or a bool), and of a
#: compiled step that draws random numbers its number. A named tuple would cost a hundredth of it.
Step = tuple[Any, Any, Any]


def step(
    who: str, loss: Any, model: Any, args: tuple[Any, ...], opt_state: Any, alive: Any = None
) -> Step:
    """One guarded training step; `alive` is the flag that the step before gave."""
    plan, store = find_plan(who, opt_state, model)
    alive = _always(store) if alive is None else alive
    purpose = plan.purposes.get(len(args)) or new_purpose(plan, len(args))
    frozen = partial(frozen_modules, opt_state, model)
    found = find(loss, args, purpose, frozen)
    while found is not None:
        try:
            return _run(who, plan, store, found, model, opt_state, alive)
        except ShapeMiss:  # only JAX sees that an array inside the model has another shape
            again = find_slowly(found.site, loss, args, purpose, frozen)
            found = None if again is not None and again.program is found.program else again
    check_loss(who, loss, args)
    return _uncompiled(loss, model, args, opt_state, purpose.differentiated, alive)


def _fused(who: str, plan: Plan, found: Found, model: Any, opt_state: Any) -> Fused:
    """The step of an objective's program for the leaves of a plan."""
    matched = match_model(who, opt_state, model)  # it may be another than the plan was made with
    arrays = {id(leaf): (leaf, array) for _, leaf, array in matched}
    program, leaves = found.program, [leaf for leaf, _ in arrays.values()]
    inputs = inputs_at(program.nests[0])
    at = tuple(inputs.get(names, -1) for names in plan.names)
    for i, (_, array) in zip(at, arrays.values(), strict=True):
        if i < 0 or program.shape(i) != array.shape:  # noted, it would not be looked at again
            raise ShapeMiss
    fused = program.extra.get((plan.group.key, at))
    if fused is None:
        fused = Fused(program, leaves, at)
        check_held(model, program.alone)
        if not program.used and leaves:
            warn_untouched(found.site.record.where, model)
        program.keep((plan.group.key, at), fused)
    program.use(plan.number, fused)
    return fused


class Ready(NamedTuple):
    """A step that is ready to run, and what puts its results into place: `(outputs, good)`."""

    fused: Fused
    arguments: tuple[Any, ...]
    commit: Callable[[Any], tuple[Any, Any]]
    record: Any
    own: Any  # what the loss returns of the caller's objects
    holds_for: Callable[[int], bool]  # whether the program is good for so many steps, checked


def attempt(
    who: str, loss: Any, model: Any, args: tuple[Any, ...], opt_state: Any, alive: Any
) -> Ready | None:
    """The step for a call, not run yet; `None` if it cannot be compiled."""
    plan, store = find_plan(who, opt_state, model)
    purpose = plan.purposes.get(len(args)) or new_purpose(plan, len(args))
    frozen = partial(frozen_modules, opt_state, model)
    found = at_rest(find, loss, args, purpose, frozen)
    if found is None:
        return None
    alive = _always(store) if alive is None else alive
    made = _prepared(who, plan, store, found, model, opt_state, alive)
    check = lambda n: holds_for(n, found, loss, args, purpose, frozen)
    return Ready(*made, found.site.record, found.got[-1], check)


def _prepared(
    who: str, plan: Plan, store: Store, found: Found, model: Any, opt_state: Any, alive: Any
) -> tuple[Fused, tuple[Any, ...], Callable[[Any], tuple[Any, Any]]]:
    """The step of a program, its arguments, and what puts its results into place."""
    program, (parameters, others, *_) = found.program, found.got
    others = [*others, NO_ROOT] if program.draws else others
    fused = program.by_plan.get(plan.number) or _fused(who, plan, found, model, opt_state)
    if readers or store.shared:
        store.owned()
    if fused.numbers.pack is None:
        fused.settle(parameters, others, store.arrays, store.counts, alive)
    vector = plan.group.vector(fused.numbers, fused.chosen)
    arguments = (parameters, others, store.arrays, store.counts, vector, alive)
    return fused, arguments, partial(_commit, store, fused, found, model)


def _commit(store: Store, fused: Fused, found: Found, model: Any, new: Any) -> tuple[Any, Any]:
    """Put what a step gave into the state, the model and its layers."""
    parameters, _, owners, places, _ = found.got
    store.arrays, store.counts, xs, outs, states, good = new
    if fused.program.places.settable:
        if not fused.all_places:
            places = [places[k] for k in fused.owner_at]
        xs = xs if fused.plain else [xs[k] for k in fused.which]
        any(map(setitem, places, fused.keys, xs))
    else:
        old = {id(parameters[p]): x for p, x in zip(fused.position, xs, strict=True)}
        put(model, lambda _, a: old.get(id(a), a))
    if states:
        any(map(setitem, owners, fused.written, states))
    return outs, good


@stepping
def _run(
    who: str, plan: Plan, store: Store, found: Found, model: Any, opt_state: Any, alive: Any
) -> Step:
    fused, arguments, commit = _prepared(who, plan, store, found, model, opt_state, alive)
    if not found.program.draws:
        outs, good = _at_once(fused, arguments, commit, found)
        return found.value(outs), good, None
    with Turn(found.program.draws) as turn:
        parameters, others, *rest = arguments
        arguments = (parameters, [*others[:-1], turn.root], *rest)
        outs, good = _at_once(fused, arguments, lambda new: turn.over(commit(new)), found)
    return found.value(outs), good, turn.tickets


def _at_once(
    fused: Fused, arguments: tuple[Any, ...], commit: Any, found: Found
) -> tuple[Any, Any]:
    """Run a step and put its results into place."""
    if watching():
        return whole(fused.step.watched, arguments, lambda new: commit(new[0]))
    if not fused.fresh:
        return whole(fused.call, arguments, commit)
    start = time.perf_counter()
    result = whole(fused.call, arguments, commit)
    fused.fresh = False
    found.site.record.seconds += time.perf_counter() - start
    return result


def _uncompiled(
    loss: Any,
    model: Any,
    args: tuple[Any, ...],
    opt_state: Any,
    differentiated: tuple[bool, ...],
    alive: Any,
) -> Step:
    """The same step for a loss that cannot be compiled."""
    if not bool(alive):
        return float("nan"), False, None
    before = Before(model)
    try:
        value, grads = _eager.value_and_gradients(
            loss, args, differentiated, _eager.Guard(frozen_modules(opt_state, model))
        )
        arrays = [first_of(value), *jax.tree.leaves(grads[0])]
        good = _eager.all_finite(arrays)
        if good:
            update(opt_state, model, grads[0])
    except BaseException:
        before.put_back()
        raise
    return value, good, None
