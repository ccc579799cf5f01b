"""A user's own rule: also one that branches on its numbers is adjusted at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


@dataclass
class Plain(fx.Rule):
    eta: float = 0.1

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        return state, self.eta * dx


@dataclass
class Branching(fx.Rule):
    eta: float = 0.1

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        return state, self.eta * dx if self.eta > 0.05 else 10 * self.eta * dx


@dataclass
class Rooted(fx.Rule):
    eta: float = 0.1

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        return state, math.sqrt(self.eta) * dx


@dataclass
class NoRule:
    """The two methods, and nothing of ours."""

    eta: float = 0.1

    def init(self, x: Any) -> Any:
        return jnp.zeros_like(x)

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        return state + dx, self.eta * dx


FORMULAS = [
    (Plain, lambda eta: eta),
    (Branching, lambda eta: eta if eta > 0.05 else 10 * eta),
    (Rooted, math.sqrt),
    (NoRule, lambda eta: eta),
]
WAYS = {
    "adjust": lambda tree, eta: fx.adjust(tree, eta),
    "assignment": lambda tree, eta: setattr(tree["w"].rule, "eta", eta),
}
STEPS = {
    "update": lambda tree, model: fx.update(tree, model, {"w": jnp.ones(1)}),
    "trainstep": lambda tree, model: fx.trainstep(
        lambda m, x: jnp.sum(m["w"] * x), model, np.ones(1, np.float32), tree
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
@pytest.mark.parametrize("change", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("rule, size", FORMULAS, ids=[r.__name__ for r, _ in FORMULAS])
def test_a_new_value_counts_from_the_next_step(
    rule: Any, size: Any, change: Any, step: Any
) -> None:
    model = {"w": jnp.zeros(1)}
    tree = fx.setup(rule(), model)
    step(tree, model)
    expected = size(0.1)
    for eta in (0.3, 0.02, 0.3, 0.04):
        change(tree, eta)
        step(tree, model)
        expected += size(eta)
        np.testing.assert_allclose(-model["w"], [expected], rtol=1e-5)


def test_a_rule_that_failed_leaves_others_of_its_class_alone() -> None:
    @dataclass
    class Odd(fx.Rule):
        eta: Any = 0.1

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            return state, self.eta * dx

    bad = {"w": jnp.zeros(1)}
    with pytest.raises(TypeError):
        fx.update(fx.setup(Odd("fast"), bad), bad, {"w": jnp.ones(1)})
    model = {"w": jnp.zeros(1)}
    tree = fx.setup(Odd(0.1), model)
    fx.update(tree, model, {"w": jnp.ones(1)})
    fx.adjust(tree, 0.2)
    fx.update(tree, model, {"w": jnp.ones(1)})
    np.testing.assert_allclose(-model["w"], [0.3], rtol=1e-5)


def test_a_class_with_the_methods_that_is_no_dataclass_is_told_what_it_lacks() -> None:
    class Undecorated:
        def init(self, x: Any) -> Any:
            return None

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            return state, dx

    message = r"got an Undecorated\. A rule of your own is a dataclass: .* with @dataclass\."
    with pytest.raises(TypeError, match=message):
        fx.setup(Undecorated(), {"w": jnp.ones(2)})


def rule_of(init: Any, apply: Any, *, elementwise: bool) -> Any:
    """A rule of one's own from two functions."""
    body = {
        "__annotations__": {"eta": float},
        "eta": 0.5,
        "elementwise": elementwise,
        "init": lambda self, x: init(x),
        "apply": lambda self, state, x, dx: apply(self, state, x, dx),
    }
    return dataclass(type("Own", (fx.Rule,), body))()


WRONG = {
    "no pair": (lambda x: None, lambda r, s, x, dx: dx, "a new state and a step, got f32[3]"),
    "a state of another shape": (jnp.zeros_like, lambda r, s, x, dx: (jnp.ones(2), dx), "f32[2]"),
    "a state of other numbers": (
        lambda x: jnp.zeros(x.shape, jnp.int32),
        lambda r, s, x, dx: (s + 0.5, dx),
        "a state as it was (i32[3], nested as `init` gave it), got f32[3]",
    ),
    "no state any more": (jnp.zeros_like, lambda r, s, x, dx: (None, dx), "got None"),
    "a larger step": (lambda x: None, lambda r, s, x, dx: (s, dx[:, None]), "got f32[3,1]"),
    "a shorter step": (lambda x: None, lambda r, s, x, dx: (s, dx[:2]), "shape (3,), got f32[2]"),
    "a complex step": (lambda x: None, lambda r, s, x, dx: (s, 1j * dx), "got c64[3]"),
    "text": (lambda x: None, lambda r, s, x, dx: (s, "dx"), "got 'dx'"),
    "text in a state": (lambda x: "s", lambda r, s, x, dx: (s, dx), "`init` to give a state of"),
}


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_what_a_rule_of_ones_own_gives_wrongly_is_named(case: str, elementwise: bool) -> None:
    init, apply, said = WRONG[case]
    model = {"a": jnp.ones(3), "b": jnp.ones(3)}
    rule, grads = rule_of(init, apply, elementwise=elementwise), {k: jnp.ones(3) for k in model}
    with pytest.raises(TypeError) as error:
        fx.update(fx.setup(rule, model), model, grads)
    assert str(error.value).startswith("Own expects `")
    assert said in str(error.value)
    assert model["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("n", [3, 5000])
@pytest.mark.parametrize("first", [0, 0.0])
def test_numbers_are_a_step_and_a_state_too(first: Any, n: int) -> None:
    rule = rule_of(lambda x: first, lambda r, s, x, dx: (s + 1, r.eta), elementwise=True)
    constant = rule_of(jnp.zeros_like, lambda r, s, x, dx: (s + dx, 0.25), elementwise=True)
    for each, step in ((rule, 0.5), (constant, 0.25)):
        model = {"a": jnp.ones(n), "b": jnp.ones(n)}
        opt_state = fx.setup(each, model)
        for _ in range(2):
            fx.update(opt_state, model, {"a": jnp.ones(n), "b": jnp.ones(n)})
        assert (model["a"] == 1 - 2 * step).all()
        assert (np.asarray(opt_state["b"].state) == 2).all()


# --- how often it is traced ----------------------------------------------------------------


def test_a_rule_and_an_objective_are_traced_once_per_program() -> None:
    """Beside the trace that finds out, once per class, how its numbers can stand in programs."""
    traced: list[Any] = []

    @dataclass
    class Counting(fx.Rule):
        eta: float = 0.1

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            traced.append(x)
            return state, self.eta * dx

    def model(n: int) -> Any:
        m = {"w": jnp.ones(n)}
        return m, fx.setup(Counting(), m)

    def by_update(m: Any, opt_state: Any) -> None:
        fx.update(opt_state, m, {"w": jnp.ones_like(m["w"])})

    def by_trainstep(m: Any, opt_state: Any) -> None:
        fx.trainstep(lambda m: jnp.sum(m["w"] ** 2), m, (), opt_state)

    by_update(*model(2))
    fx.clear_cache()
    for n, way in enumerate([by_update, by_trainstep, by_update, by_trainstep], start=70):
        traced.clear()
        way(*model(n))
        assert len(traced) == 1, way
    assert [record.traces for record in fx.explain()] == [2]  # of the objective, for two shapes
