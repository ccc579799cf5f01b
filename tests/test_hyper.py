"""What a rule is as an object, and how its numbers enter a compiled step."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluxax.optimisers._adam import Adam, AdamW
from fluxax.optimisers._adaptive import AdaDelta, RMSProp
from fluxax.optimisers._combine import OptimiserChain
from fluxax.optimisers._descent import Descent, Momentum, Rprop
from fluxax.optimisers._hyper import Pack, PackFull, pack_dtype
from fluxax.optimisers._modifiers import ClipGrad, ClipNorm, WeightDecay
from fluxax.optimisers._products import multiplied, powers
from fluxax.optimisers._rule import (
    Rule,
    check_rule,
    fields_of,
    hyperparameters,
    unknown_field,
    version,
    watched,
)
from fluxax.optimisers._views import array_view, hyper_view, room, static_view

X, G = jnp.ones(3), jnp.array([0.5, -2.0, 0.0])


def trace(rule: Any, view: Any = hyper_view, size: int | None = None, x: Any = X) -> Pack:
    """A rule's step, traced; the pack of its hyperparameters."""
    packs = []

    def step(vector: Any, x: Any) -> Any:
        packs.append(Pack(vector))
        return view(rule, packs[-1], 0).apply(rule.init(x), x, x)

    vector = jax.ShapeDtypeStruct((room([rule]) if size is None else size,), pack_dtype())
    jax.make_jaxpr(step)(vector, x)
    return packs[-1]


# --- a rule as an object ------------------------------------------------------------------


def test_the_constructor_is_optimisers_jls() -> None:
    assert repr(Adam()) == "Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)"
    assert repr(AdamW(1, [0, 0.5], 2, 3, False)) == (
        "AdamW(eta=1.0, beta=(0.0, 0.5), lam=2.0, epsilon=3.0, couple=False)"
    )
    assert Rprop() == Rprop(1e-3, (0.5, 1.2), (1e-6, 50))
    assert AdaDelta(0.8).rho == 0.8
    assert Descent(np.float32(0.5)).eta == 0.5
    assert type(Descent(jnp.array(0.5)).eta) is float


def test_rules_compare_by_type_and_content() -> None:
    assert Adam(0.1) == Adam(0.1) != Adam(0.2)
    assert WeightDecay(0.1) != Descent(0.1)
    assert OptimiserChain(Adam(), Descent()) == OptimiserChain(Adam(), Descent())
    assert OptimiserChain(Adam(), Descent()) != OptimiserChain(Descent(), Adam())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_a_copy_is_equal_and_its_own(again: Any) -> None:
    chain = OptimiserChain(ClipGrad(1), OptimiserChain(Adam(0.1)))
    other = again(chain)
    assert other == chain
    other.opts[1].opts[0].eta = 0.2
    assert chain.opts[1].opts[0].eta == 0.1


REFUSED = [
    (lambda: Adam(-1), ValueError, "Adam expects `eta` of at least 0, got -1."),
    (lambda: Momentum(rho=1), ValueError, "Momentum expects `rho` in [0, 1), got 1."),
    (lambda: Adam(beta=(0.9, 1)), ValueError, "Adam expects each of `beta` in [0, 1), got 1."),
    (lambda: Adam(beta=(0.9,)), ValueError,
     "Adam expects `beta` to be 2 numbers, got a tuple of 1."),
    (lambda: Adam(beta=0.9), TypeError, "Adam expects `beta` to be 2 numbers, got 0.9."),
    (lambda: Adam(beta=(0.9, "b")), TypeError, "Adam expects `beta` to be 2 numbers, got 'b'."),
    (lambda: Adam("fast"), TypeError,
     "Adam expects `eta` to be a number or a schedule, got 'fast'."),
    (lambda: Adam(True), TypeError, "Adam expects `eta` to be a number or a schedule, got True."),
    (lambda: Adam(None), TypeError, "Adam expects `eta` to be a number or a schedule, got None."),
    (lambda: Adam(jnp.ones(2)), TypeError,
     "Adam expects `eta` to be a number or a schedule, got f32[2]."),
    (lambda: Adam(1j), TypeError, "Adam expects `eta` to be a number or a schedule, got 1j."),
    (lambda: Descent(math.nan), ValueError, "Descent expects `eta` of at least 0, got nan."),
    (lambda: RMSProp(centred=1), TypeError,
     "RMSProp expects `centred` to be True or False, got 1."),
    (lambda: OptimiserChain(Adam), TypeError,
     "OptimiserChain expects a rule, got the class Adam. Write Adam()."),
    (lambda: OptimiserChain(0.1), TypeError,
     "OptimiserChain expects a rule such as fx.Adam(1e-3), got 0.1."),
    (lambda: OptimiserChain([Adam()]), TypeError,
     "OptimiserChain expects a rule such as fx.Adam(1e-3), got a list of 1."),
    (lambda: RMSProp(centred=True).apply((X, None), X, X), ValueError,
     "RMSProp expects `centred` as it was at setup, got True. Set up anew."),
]  # fmt: skip


@pytest.mark.parametrize("make, error, sentence", REFUSED, ids=[s for _, _, s in REFUSED])
def test_wrong_values_are_refused(make: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == sentence


def test_an_assignment_is_checked_like_the_constructor() -> None:
    rule = Adam()
    before = version.now
    with pytest.raises(ValueError, match="of at least 0, got -1"):
        rule.eta = -1
    assert (rule, version.now) == (Adam(), before)
    rule.beta = [0, 0.5]
    assert rule.beta == (0.0, 0.5)
    assert version.now > before


def test_schedules_pass_the_checks() -> None:
    schedule = lambda step: 0.1 / (1 + step)
    assert Adam(schedule).eta is schedule
    assert Adam(beta=(schedule, 0.9)).beta[0] is schedule
    assert Rprop(schedule).init(X)[1].tolist() == pytest.approx([0.1] * 3)


def test_a_rule_may_be_made_inside_somebodys_own_jit() -> None:
    step = jax.jit(lambda eta: Descent(eta).apply(None, X, G)[1])
    assert step(0.5).tolist() == [0.25, -1.0, 0.0]


def test_adjust_finds_its_fields() -> None:
    chain = OptimiserChain(ClipGrad(), OptimiserChain(Momentum(), Descent()))
    assert hyperparameters(chain) == ["delta", "eta", "rho"]
    assert unknown_field("adjust", Adam(), "zeta") == (
        "adjust expects a field of Adam (beta, epsilon, eta), got `zeta`."
    )


# --- the modifiers and the chain ----------------------------------------------------------


def test_a_chain_goes_from_left_to_right() -> None:
    rule = OptimiserChain(ClipGrad(1), Descent(0.1))
    state, step = rule.apply(rule.init(X), X, jnp.array([0.3, 1, 7]))
    assert step.tolist() == pytest.approx([0.03, 0.1, 0.1])
    assert state == (None, None)
    assert OptimiserChain().apply((), X, G) == ((), G)
    assert repr(OptimiserChain()) == "OptimiserChain()"


@pytest.mark.parametrize("p", [0, 1, 2, 3, math.inf])
def test_clipnorm_at_the_edges(p: float) -> None:
    step = lambda g, omega=1.0: ClipNorm(omega, p).apply(None, g, g)[1]
    zeros = jnp.zeros(3)
    assert step(zeros).tolist() == step(zeros, 0).tolist() == [0, 0, 0]
    assert step(jnp.zeros((0, 2))).shape == (0, 2)
    for bad in (math.nan, math.inf):
        if p:
            assert np.array_equal(step(jnp.array([1.0, bad])), [1.0, bad], equal_nan=True)
    large = step(jnp.array([3e25, 4e25]))
    assert np.isfinite(large).all()
    if p == 2:
        assert large.tolist() == pytest.approx([0.6, 0.8])
        assert step(jnp.array([300, 400], "float16")).tolist() == pytest.approx(
            [0.6, 0.8], rel=1e-3
        )


# --- hyperparameters in a program ---------------------------------------------------------


def test_one_minus_power_does_not_cancel() -> None:
    for beta in (0.0, 0.5, 0.999, 1 - 1e-7):
        for t in (1, 2, 1000):
            kept = jax.tree.map(np.int32, powers(X, [beta], t - 1))
            _, (power,) = multiplied(kept, [beta], X)
            wanted = -math.expm1(t * math.log(beta)) if beta else 1
            assert float(power.one_minus()) == pytest.approx(wanted, rel=1e-6)


def test_equal_expressions_share_an_element() -> None:
    @dataclass
    class Shares(Rule):
        eta: float = 0.5

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            return state, (1 - self.eta) * x + (1 - self.eta) * dx + (True - self.eta) * dx

    pack = trace(Shares())
    assert pack.values([Shares(0.25)]).tolist() == [0.75, 0.75, *[0] * (pack.size - 2)]


def test_numbers_stay_float64_until_they_meet_an_array() -> None:
    pack = trace(Adam(beta=(0.9, 0.9999999)))
    values = pack.values([Adam(beta=(0.9, 0.9999999))])
    assert values.dtype == np.float32
    assert np.float32(1 - 0.9999999) in values
    assert np.float32(math.log(0.9999999)) in values


def test_a_full_pack_says_so() -> None:
    with pytest.raises(PackFull):
        trace(Adam(), size=3)


def test_room_is_enough_for_our_rules() -> None:
    chain = OptimiserChain(*(cls() for cls in (Adam, Adam, AdamW, RMSProp, Rprop, WeightDecay)))
    assert trace(chain).size == room([chain])


@dataclass
class Wheres(Rule):
    """A rule with which a `Hyper` cannot cope, but an array can."""

    eta: float = 0.1

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        return state, jnp.where(dx > 0, self.eta, 0.0) * dx


@dataclass
class Branches(Rule):
    """A rule with which only fixed numbers can cope."""

    eta: float = 0.1
    power: int = 2

    def apply(self, state: Any, x: Any, dx: Any) -> Any:
        for _ in range(self.power):
            dx = self.eta * dx if self.eta == 0.5 else dx
        return state, dx


@pytest.mark.parametrize("rule", [Wheres(), OptimiserChain(Adam(), Wheres())], ids=repr)
def test_array_view_copes_with_functions_of_jax(rule: Any) -> None:
    with pytest.raises(TypeError):
        trace(rule)

    def step(vector: Any, g: Any) -> Any:
        return array_view(rule, packs.append(Pack(vector)) or packs[-1], 0, X).apply(state, X, g)[1]

    packs: list[Pack] = []
    state = rule.init(X)
    program = jax.jit(step).lower(jnp.zeros(40), G).compile()
    assert np.allclose(program(packs[-1].values([rule]), G), rule.apply(state, X, G)[1], rtol=1e-6)


def test_static_view_copes_with_everything() -> None:
    rule = Branches(0.5)
    for view in (hyper_view, lambda rule, pack, i: array_view(rule, pack, i, X)):
        with pytest.raises(TypeError):
            trace(rule, view)
    assert jax.jit(lambda g: static_view(rule).apply(None, X, g)[1])(G).tolist() == [0.125, -0.5, 0]


@pytest.mark.parametrize(
    "use",
    [bool, float, int, len, iter, abs, math.sqrt, jnp.sqrt, np.sqrt, lambda h: h == 0.1,
     lambda h: h < 1, lambda h: h in (1, 2), lambda h: h // 2, lambda h: jnp.asarray(h)],
)  # fmt: skip
def test_what_needs_a_fixed_value_is_a_type_error(use: Any) -> None:
    with pytest.raises(TypeError):
        use(Pack(jnp.zeros(3)).hyper("rules[0].eta"))


@pytest.mark.parametrize("view", [hyper_view, lambda r, p, i: static_view(r)])
def test_a_rule_that_changes_itself_is_told_where_to_keep_it(view: Any) -> None:
    @dataclass
    class Counts(Rule):
        t: int = 0

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            self.t += 1
            return state, dx / self.t

    with pytest.raises(TypeError, match="Keep what changes from step to step in the state"):
        trace(Counts(), view)


def test_a_view_leaves_the_rule_alone() -> None:
    rule, pack, before = OptimiserChain(Adam()), Pack(jnp.zeros(9)), version.now
    hyper_view(rule, pack, 0)
    assert (rule, version.now) == (OptimiserChain(Adam()), before)


def test_a_rule_need_not_be_ours() -> None:
    @dataclass
    class Foreign:
        eta: float = 0.5

        def init(self, x: Any) -> Any:
            return None

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            return state, self.eta * dx

    rule = OptimiserChain(Foreign())
    assert check_rule("setup", rule.opts[0]) is rule.opts[0]
    assert not watched(rule)
    assert watched(OptimiserChain(Adam()))
    assert trace(rule).values([rule])[0] == 0.5


def test_a_rule_without_the_decorator_works() -> None:
    class Plain(Rule):
        def __init__(self, eta: float, power: int):
            self.eta, self.power = eta, power

        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            return state, self.eta * dx**self.power

    assert fields_of(Plain(0.1, 2)) == ["eta", "power"]
    assert Plain(0.1, 2) == Plain(0.1, 2) != Plain(0.1, 3)
    assert repr(Plain(0.1, 2)) == "Plain(eta=0.1, power=2)"
    with pytest.raises(ValueError, match="of at least 0"):
        Plain(-0.1, 2)
