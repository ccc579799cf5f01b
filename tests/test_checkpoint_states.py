"""Checkpoints of state trees, schedules, random numbers and loaders."""

from __future__ import annotations

import random
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.keeping import Foreign, arrays, equal, net

X = np.linspace(-1, 1, 24, dtype="float32").reshape(6, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def mse(m, x):
    return jnp.mean(m(x) ** 2)


# --- state trees -----------------------------------------------------------------------------

RULES = [
    fx.Descent(0.1), fx.Momentum(0.1), fx.Nesterov(), fx.Rprop(), fx.RMSProp(), fx.Adam(),
    fx.AdamW(), fx.RAdam(), fx.AdaMax(), fx.OAdam(), fx.AdaGrad(), fx.AdaDelta(), fx.AMSGrad(),
    fx.NAdam(), fx.AdaBelief(), fx.Lion(),
    fx.OptimiserChain(fx.WeightDecay(1e-3), fx.ClipNorm(1.0), fx.Adam(0.1)),
    fx.OptimiserChain(fx.AccumGrad(2), fx.ClipGlobalNorm(1.0), fx.Adam()), fx.Muon(),
    fx.MixedPrecision(np.float32, fx.Momentum(0.1)), fx.OptimiserChain(fx.Adam(0.1), fx.EMA(0.9)),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_states_of_every_rule(rule, path):
    model = {"b": jnp.full(3, 0.25), "c": jnp.ones(1100), "w": jnp.full((2, 3), 0.5)}
    opt_state = fx.setup(rule, model)
    grad = jax.tree.map(lambda a: a * 0.3, model)
    for _ in range(3):
        fx.update(opt_state, model, grad)
    fx.adjust(opt_state["w"], **{"rho" if isinstance(rule, fx.AdaDelta) else "eta": 0.025})
    fx.freeze(opt_state["c"])
    fx.save(path, opt_state=opt_state)
    other = fx.setup(rule, jax.tree.map(jnp.ones_like, model))
    fx.load(path, opt_state=other)
    assert other == opt_state
    assert [other[k].steps for k in other] == [opt_state[k].steps for k in other]
    assert other["w"].rule == opt_state["w"].rule
    assert (other["b"].frozen, other["c"].frozen) == (False, True)
    one, two = (fx.update(tree, dict(model), grad)[1] for tree in (opt_state, other))
    assert equal(one, two)
    free = fx.load(path)["opt_state"]
    assert free["c"].frozen
    assert free["w"].rule.name == type(rule).__name__


def test_frozen_marks_come_back_on_nodes_too(path):
    model = net()
    opt_state = fx.setup(fx.Adam(), model)
    fx.freeze(opt_state.layers[1])
    fx.save(path, opt_state=opt_state)
    other = fx.setup(fx.Adam(), model)
    fx.freeze(other.layers[0])
    fx.load(path, opt_state=other)
    assert [n.frozen_mark for n in other.layers] == [False, True, False, False]
    assert other.layers[1].scale.frozen
    assert not other.layers[0].weight.frozen


def test_loading_hyperparameters_compiles_nothing_new(path):
    model = fx.Dense(4, 2)
    opt_state = fx.setup(fx.Adam(1e-3), model)
    fx.save(path, model=model, opt_state=opt_state)
    fx.adjust(opt_state, 0.5)
    fx.clear_cache()
    fx.trainstep(mse, model, (X,), opt_state)
    for _ in range(2):
        fx.load(path, model=model, opt_state=opt_state)
        assert opt_state.weight.rule.eta == 1e-3
        fx.trainstep(mse, model, (X,), opt_state)
    assert [r.traces for r in fx.explain()] == [1]


def halved(step):
    return 0.1 / (1 + step)


def with_closure(start):
    def schedule(step):
        return start / (1 + step)

    return schedule


SCHEDULES = {
    "named": (halved, halved, None),
    "closure": (with_closure(0.1), with_closure(0.1), None),
    "other value": (
        with_closure(0.1),
        with_closure(0.2),
        "start = 0.1 in the checkpoint, 0.2 here",
    ),
    "lambda": (lambda s: 0.1 / (1 + s), lambda s: 0.1 / (1 + s), None),
    "other lambda": (
        lambda s: 0.1 / (1 + s),
        lambda s: 0.1 / (2 + s),
        "other code in the checkpoint",
    ),
    "other name": (halved, with_closure(0.1), "halved in the checkpoint, with_closure"),
    "a number now": (halved, 0.1, "halved in the checkpoint, 0.1 here"),
    "a number then": (0.1, halved, None),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules_are_kept_by_name_and_by_what_they_hold(case, path):
    then, now, refusal = SCHEDULES[case]
    model = {"w": jnp.ones(3)}
    fx.save(path, opt_state=fx.setup(fx.Adam(then), model))
    other = fx.setup(fx.Adam(now), model)
    if refusal:
        with pytest.raises(ValueError, match=rf"opt_state\['w'\].rule.eta: .*{refusal}"):
            fx.load(path, opt_state=other)
        with pytest.warns(UserWarning, match=f"{refusal}.*: left as it is"):
            fx.load(path, strict=False, opt_state=other)
        assert other["w"].rule.eta is now
    else:
        fx.load(path, opt_state=other)
        assert other["w"].rule.eta == (then if then == 0.1 else now)


def test_optax_schedules(path):
    import optax

    make = lambda a: fx.setup(fx.Adam(optax.cosine_decay_schedule(a, 100)), {"w": jnp.ones(3)})
    fx.save(path, opt_state=make(1e-3))
    fx.load(path, opt_state=make(1e-3))
    with pytest.raises(ValueError, match=r"init_value = 0.001 in the checkpoint, 0.01 here"):
        fx.load(path, opt_state=make(1e-2))


def test_optax_transformations(path):
    import optax

    model = {"b": jnp.ones(3), "w": jnp.ones((2, 3))}
    grad = jax.tree.map(lambda a: a * 0.5, model)
    make = lambda eta: fx.setup(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(eta)), model)
    opt_state = make(0.1)
    fx.update(opt_state, dict(model), grad)
    fx.save(path, opt_state=opt_state)
    other = make(0.1)
    fx.load(path, opt_state=other)
    one, two = (fx.update(tree, dict(model), grad)[1] for tree in (opt_state, other))
    assert equal(one, two)
    with pytest.raises(ValueError, match=r"= -?0\.1 in the checkpoint, -?0\.2 here"):
        fx.load(path, opt_state=make(0.2))


def test_the_implicit_style_is_kept_by_the_pair_of_rule_and_params(path):
    start = lambda: (model := {"b": jnp.ones(3), "w": jnp.ones((2, 3))}, fx.params(model))
    (model, ps), opt = start(), fx.Adam(0.1)
    grads = lambda m, p: fx.gradient(lambda: jnp.sum(m["w"] ** 2) + jnp.sum(m["b"] ** 3), p)
    for _ in range(2):
        fx.update(opt, ps, grads(model, ps))
    opt.eta = 0.025
    with pytest.raises(
        TypeError, match=r"pair \(opt, ps\) for a rule that remembers Params.*opt=\(opt, ps\)"
    ):
        fx.save(path, opt=opt)
    fx.save(path, model=model, opt=(opt, ps))
    (other, places), rule = start(), fx.Adam()
    fx.load(path, model=other, opt=(rule, places))
    assert rule.eta == 0.025
    for _ in range(2):
        fx.update(opt, ps, grads(model, ps))
        fx.update(rule, places, grads(other, places))
        assert equal(model, other)


def test_a_rule_of_ones_own_is_filled_and_never_imported(path):
    @dataclass
    class Mine(fx.Rule):
        eta: float = 0.1
        kind: str = "a"

        def apply(self, state, x, dx):
            return state, self.eta * dx

    fx.save(path, opt_state=fx.setup(Mine(0.5, "b"), {"w": jnp.ones(3)}))
    other = fx.setup(Mine(), {"w": jnp.ones(3)})
    fx.load(path, opt_state=other)
    assert other["w"].rule == Mine(0.5, "b")
    with pytest.raises(
        ValueError, match=r"opt_state\['w'\].rule: Mine in the checkpoint, Adam here"
    ):
        fx.load(path, opt_state=fx.setup(fx.Adam(), {"w": jnp.ones(3)}))


def test_a_value_that_a_rule_would_refuse_is_refused(path, monkeypatch):
    monkeypatch.setattr(fx.Descent, "limits", {"eta": (-1.0, 1.0)})
    fx.save(path, opt_state=fx.setup(fx.Descent(-0.5), {"w": jnp.ones(3)}))
    monkeypatch.undo()
    other = fx.setup(fx.Descent(0.1), {"w": jnp.ones(3)})
    with pytest.raises(
        ValueError, match=r"rule.eta: Descent expects `eta` of at least 0, got -0.5"
    ):
        fx.load(path, opt_state=other)


# --- random numbers, loaders, generators -----------------------------------------------------


def test_random_numbers_go_on_where_a_run_goes_on(path):
    fx.seed(5)
    fx.rand32(3)
    loader = fx.DataLoader(np.arange(10), shuffle=True, batchsize=3)
    epoch = iter(loader)
    next(epoch)
    fx.save(path, loader=loader, model=net())
    rest = [x.tolist() for x in epoch]
    later = [x.tolist() for x in fx.DataLoader(np.arange(10), shuffle=True)]
    drawn = fx.rand32(4).tolist()
    fx.seed(9)
    again = [x.tolist() for x in loader]

    fx.seed(77)
    other = fx.DataLoader(np.arange(10), shuffle=True, batchsize=3)
    fx.load(path, loader=other)
    assert [x.tolist() for x in other] == rest
    assert [x.tolist() for x in fx.DataLoader(np.arange(10), shuffle=True)] == later
    assert fx.rand32(4).tolist() == drawn
    fx.seed(9)  # a loader that followed fx.seed does so again
    assert [x.tolist() for x in other] == again


def test_a_model_alone_leaves_random_numbers_alone(path):
    fx.save(path, model=net())
    fx.seed(3)
    model = net()
    fx.seed(3)
    net()
    expected = fx.rand32(2).tolist()
    fx.seed(3)
    net()
    fx.load(path, model=model)
    fx.load(path)
    assert fx.rand32(2).tolist() == expected


GENERATORS = {
    "PCG64": lambda: np.random.Generator(np.random.PCG64(3)),
    "PCG64DXSM": lambda: np.random.Generator(np.random.PCG64DXSM(3)),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(3)),
    "Philox": lambda: np.random.Generator(np.random.Philox(3)),
    "SFC64": lambda: np.random.Generator(np.random.SFC64(3)),
    "python": lambda: random.Random(3),
}  # fmt: skip


@pytest.mark.parametrize("kind", GENERATORS)
def test_random_generators(kind, path):
    rng = GENERATORS[kind]()
    rng.random()
    fx.save(path, rng=rng, deep={"rng": rng, "n": 1})
    expected = [rng.random() for _ in range(3)]
    other = GENERATORS[kind]()
    assert fx.load(path, rng=other)["rng"] is other
    assert [other.random() for _ in range(3)] == expected
    assert fx.load(path)["deep"]["rng"].random() == expected[0]


def test_other_loaders_and_all_or_nothing(path):
    model = net()
    opt_state = fx.setup(fx.Adam(), model)
    fx.save(path, one=Foreign(5), two=Foreign(6), model=model, opt_state=opt_state, log=[1])
    other, log = net(), [2]
    state = fx.setup(fx.Adam(), other)
    before = arrays(other)
    one, two = Foreign(), Foreign(broken=True)
    with pytest.raises(RuntimeError, match="no such place"):
        fx.load(path, one=one, two=two, model=other, opt_state=state, log=log)
    assert one.at == 0
    assert all((a == b).all() for a, b in zip(arrays(other), before, strict=True))
    assert log == [2]
    assert state.layers[0].weight.steps == 0
    assert fx.load(path, one=one)["one"] is one
    assert one.at == 5
    assert fx.load(path)["two"] == {"at": 6}


class DataLoader:
    """Somebody else's class, called as ours."""

    def __init__(self):
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Random(DataLoader):
    pass


@pytest.mark.parametrize("make", [DataLoader, Random])
def test_a_class_of_others_may_be_called_as_one_that_is_known(make, path):
    source = make()
    source.at = 3
    fx.save(path, source=source)
    assert fx.load(path)["source"] == {"at": 3}
    fx.load(path, source=(new := make()))
    assert new.at == 3
