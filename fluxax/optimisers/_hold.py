"""A rule's step for many leaves, in a form that XLA runs fast and in place.

Two things are done to the jaxpr of a rule's `apply`:

* **Scalars together.** What a rule computes from hyperparameters and step counts alone (bias
  corrections, say) is the same small program for every leaf. It runs once, on vectors with an
  element per leaf; otherwise a net of 100 layers has 400 kernels for single numbers.
* **Held in place.** A step that may be held back selects by a flag. Selecting after the rule
  has run makes three kernels of every leaf read its old state, so XLA copies it; if the step is
  computed from the state as selected, old state is read once. Where the flag is true both are the
  same; where it is not, the step is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._jax import cut, eval_jaxpr, holds
from fluxax._primitives import is_var

Apply = Callable[[list[Any], Any, Any], tuple[list[Any], Any, Any]]


class LeafStep:
    """The step of one leaf as a jaxpr, as far as this JAX can take one apart.

    Args:
        apply: gives a new flat state, a new parameter or the step, and whether it was taken.
        state: the flat state.
        x: the parameter.
        dx: its gradient.
        vector: the packed hyperparameters that `apply` reads.
    """

    def __init__(self, apply: Apply, state: list[Any], x: Any, dx: Any, vector: Any):
        def flat(state: list[Any], x: Any, dx: Any) -> list[Any]:
            new, new_x, taken = apply(state, x, dx)
            new = [_cast(n, o.dtype) for n, o in zip(new, state, strict=True)]
            always.append(taken)
            return [*new, new_x, *([] if isinstance(taken, bool) else [taken])]

        always: list[Any] = []
        self.state = state
        self.inputs = [*state, x, dx]
        self.outs = None
        if holds("cut") and holds("evaluation"):
            self.closed = jax.make_jaxpr(flat)(state, x, dx)
            self.jaxpr = self.closed.jaxpr
            self.scalars: Any = _Scalars(self.closed, len(state), vector)
        else:
            self.outs, self.scalars = flat(state, x, dx), _NoScalars()
        self.taken = always[0] if isinstance(always[0], bool) else None  # a flag is an output

    def finish(self, given: dict[Any, Any], good: Any) -> tuple[list[Any], Any, Any]:
        """The new state, the new parameter, and whether the step was taken.

        Where `good` is false, the state is as before; of the others the caller must see to that.

        Args:
            given: the values of scalars that were computed elsewhere.
            good: a flag that broadcasts against the arrays; `None` means always.
        """
        n = len(self.state)
        if self.outs is not None:
            new, (new_x, *taken) = self.outs[:n], self.outs[n:]
            held = zip(new, self.state, strict=True)
            new = new if good is None else [jnp.where(good, *pair) for pair in held]
            return new, new_x, taken[0] if taken else self.taken
        states, (stepped, *taken) = self.jaxpr.outvars[:n], self.jaxpr.outvars[n:]
        flag = self._evaluate(taken, given)[0] if taken else self.taken
        if good is None:
            *new, new_x = self._evaluate([*states, stepped], given)
            return new, new_x, flag
        made, new = {v for eqn in self.jaxpr.eqns for v in eqn.outvars}, list(self.state)
        counts = [i for i, old in enumerate(new) if jnp.issubdtype(old.dtype, np.integer)]
        for at in (counts, *([i] for i in range(n) if i not in counts)):  # from those before, held
            for i, value in zip(at, self._evaluate([states[i] for i in at], given), strict=True):
                new[i] = jnp.where(good, value, new[i])
                given = {**given, states[i]: new[i]} if _in(states[i], made) else given
        (new_x,) = self._evaluate([stepped], given)
        return new, new_x, flag

    def _evaluate(self, wanted: list[Any], given: dict[Any, Any]) -> list[Any]:
        """Some outputs, with some variables given."""
        needed, eqns = {v for v in wanted if is_var(v)} - set(given), []
        for eqn in reversed(self.jaxpr.eqns):
            if not needed.isdisjoint(eqn.outvars):
                eqns.append(eqn)
                needed |= {v for v in eqn.invars if is_var(v)} - set(given)
        part = cut(self.jaxpr, [*self.jaxpr.invars, *given], eqns[::-1], wanted)
        return eval_jaxpr(part, self.closed.consts, *self.inputs, *given.values())


class _Scalars:
    """The equations of a step that only hyperparameters and step counts go into.

    Attributes:
        key: equal for steps whose scalars can be computed together.
        at: the elements of the vector that are read, in order.
        counts: the positions in the state that are step counts.
        results: the variables that the rest of the step, or the new state, takes.
    """

    def __init__(self, closed: Any, n_state: int, vector: Any):
        jaxpr = closed.jaxpr
        source = {v for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if c is vector}
        self.jaxpr = jaxpr
        self.counts = [i for i, v in enumerate(jaxpr.invars[:n_state]) if _is_count(v)]
        self.at: list[int] = []
        self.roots: list[Any] = []
        self.eqns: list[Any] = []
        names: dict[Any, Any] = {jaxpr.invars[i]: ("count", i) for i in self.counts}
        rest: set[Any] = set()
        key: list[Any] = [tuple(self.counts)]
        for eqn in jaxpr.eqns:
            operands = [v for v in eqn.invars if is_var(v)]
            if eqn.primitive.name == "slice" and set(operands) <= source:
                self.at.append(eqn.params["start_indices"][0])
                self.roots.append(eqn.outvars[0])
                names[eqn.outvars[0]] = ("root", len(self.at))
            elif operands and all(v in names for v in operands) and _all_single(eqn.outvars):
                self.eqns.append(eqn)
                read = tuple(names[v] if is_var(v) else repr(v) for v in eqn.invars)
                key.append((eqn.primitive.name, str(eqn.params), read))
                names.update((v, ("made", len(key), i)) for i, v in enumerate(eqn.outvars))
            else:
                rest.update(operands)
        made = {v for eqn in self.eqns for v in eqn.outvars}
        wanted = [*rest, *(v for v in jaxpr.outvars if is_var(v))]
        self.results = sorted((v for v in set(wanted) & made), key=lambda v: names[v])
        self.key = (tuple(key), tuple(names[v] for v in self.results))


class _NoScalars:
    """A step that is done as it is: nothing of it is computed together with others."""

    def __init__(self) -> None:
        self.key, self.at, self.counts, self.results = object(), [], [], []


def shared_scalars(
    steps: list[LeafStep], vector: Any, counts: list[list[int]], all_counts: Any
) -> Any:
    """The scalars of several leaves at once.

    Args:
        steps: steps with one scalar key.
        vector: the packed hyperparameters.
        counts: by step, where its step counts lie in `all_counts`.

    Returns:
        A vector per result of the scalar part, with an element per step.
    """
    first = steps[0].scalars
    part = cut(
        first.jaxpr,
        [*first.roots, *(first.jaxpr.invars[i] for i in first.counts)],
        first.eqns,
        first.results,
    )
    roots = [_pick(vector, [s.scalars.at[j] for s in steps])[:, None] for j in range(len(first.at))]
    times = [_pick(all_counts, [c[j] for c in counts]) for j in range(len(first.counts))]
    return jax.vmap(lambda *inputs: eval_jaxpr(part, steps[0].closed.consts, *inputs))(
        *roots, *times
    )


def _cast(array: Any, dtype: Any) -> Any:
    return array if array.dtype == dtype else array.astype(dtype)


def _pick(vector: Any, at: list[int]) -> Any:
    """Elements of a vector; evenly spaced ones as a slice, which costs nothing."""
    stride = at[1] - at[0] if len(at) > 1 else 1
    if stride > 0 and at == list(range(at[0], at[0] + stride * len(at), stride)):
        return lax.slice(vector, (at[0],), (at[-1] + 1,), (stride,))
    return vector[np.array(at)]


def _in(atom: Any, variables: set[Any]) -> bool:
    return is_var(atom) and atom in variables


def _is_count(var: Any) -> bool:
    return var.aval.shape == () and jnp.issubdtype(var.aval.dtype, np.integer)


def _all_single(outvars: list[Any]) -> bool:
    return all(v.aval.size == 1 for v in outvars)
