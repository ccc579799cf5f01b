"""Every rule, against its formula in float64 NumPy, compiled and not, in every dtype.

The formulas stand in `rule_formulas.py`.
"""

from __future__ import annotations

import copy
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fluxax.optimisers._accumulate import AccumGrad
from fluxax.optimisers._adam import (
    AdaBelief,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    Lion,
    NAdam,
    OAdam,
    RAdam,
)
from fluxax.optimisers._adaptive import AdaDelta, AdaGrad, RMSProp
from fluxax.optimisers._average import EMA
from fluxax.optimisers._combine import OptimiserChain
from fluxax.optimisers._descent import Descent, Momentum, Nesterov, Rprop
from fluxax.optimisers._hyper import Pack, pack_dtype
from fluxax.optimisers._modifiers import ClipGlobalNorm, ClipGrad, ClipNorm, SignDecay, WeightDecay
from fluxax.optimisers._muon import Muon
from fluxax.optimisers._rule import fields_of
from fluxax.optimisers._taken import Sometimes
from fluxax.optimisers._views import hyper_view, room
from tests.rule_formulas import DEFAULTS, ORACLES, RULES, TELLING, decays, name, start

STEPS = 10


EDGES = [
    Adam(0.1, (0, 0)), Adam(0.1, (0.9, 0.99999)), RAdam(0.1, (0.9, 0)), RAdam(0.1, (0.9, 0.6)),
    RAdam(0.1, (0, 0.99999)), NAdam(0.1, (0.0, 0.999)), Momentum(0.1, 0), Descent(0),
    AdaMax(0.1, (0, 0)), ClipGrad(0), ClipNorm(0), ClipNorm(np.inf),
]  # fmt: skip
COMPLEX = [rule for rule in TELLING if not isinstance(rule, Rprop)]


def problem(dtype: Any = "float64") -> tuple[np.ndarray, np.ndarray]:
    """A parameter and ten gradients, not centred on zero."""
    draw = np.random.default_rng(3)
    x, gs = draw.normal(size=(3, 4)), draw.normal(size=(STEPS, 3, 4)) + 0.3
    if np.issubdtype(dtype, np.complexfloating):
        x, gs = x + 1j * draw.normal(size=x.shape), gs + 1j * draw.normal(size=gs.shape)
    return x, gs


def expected(rule: Any, x: Any, gs: Any, oracle: Any = None) -> tuple[Any, Any]:
    """The sum of ten steps, and of their sizes."""
    steps, first, size = start(rule, oracle), x, 0.0
    for g in gs:
        step = steps.send((x, g))
        x, size = x - step, size + abs(step)
    return first - x, size


def run(rule: Any, x: Any, gs: Any, apply: Any = None) -> tuple[Any, Any, Any]:
    """The sum of ten steps in float64, the last step, and the state."""
    state, total = rule.init(x), 0.0
    for g in gs:
        state, step = (apply or rule.apply)(state, x, g)
        if isinstance(step, Sometimes):
            step = jnp.where(step.taken, step.dx, 0)
        step = jnp.zeros_like(x) if step is None else step
        x, total = x - step, total + np.asarray(step, complex if jnp.iscomplexobj(step) else float)
    return total, step, state


def off(found: Any, wanted: Any, size: Any) -> float:
    """The largest error, relative to the sum of the sizes of the steps."""
    return float(np.max(np.abs(found - wanted) / np.maximum(size, 1e-30)))


def compiled(rule: Any, x: Any, g: Any, view: Any = hyper_view) -> Any:
    """`apply` as a program into which the rule's numbers come as one vector."""
    packs = []

    def step(vector: Any, state: Any, x: Any, g: Any) -> Any:
        packs.append(Pack(vector))
        return view(rule, packs[-1], 0).apply(state, x, g)

    vector = jax.ShapeDtypeStruct((room([rule]),), pack_dtype())
    program = jax.jit(step).lower(vector, rule.init(x), x, g).compile()
    return lambda state, x, g: program(packs[-1].values([rule]), state, x, g)


@pytest.mark.parametrize("rule", RULES + EDGES, ids=name)
def test_agrees_with_its_formula(rule: Any) -> None:
    x, gs = problem()
    x32, gs32 = jnp.asarray(x, jnp.float32), jnp.asarray(gs, jnp.float32)
    wanted, size = expected(rule, np.float64(x32), np.float64(gs32))
    eager = run(rule, x32, gs32)
    assert off(eager[0], wanted, size) < 1e-5
    fast = run(rule, x32, gs32, compiled(rule, x32, gs32[0]))
    assert off(fast[0], eager[0], size) < 1e-6


@pytest.mark.parametrize("rule", RULES + EDGES, ids=name)
def test_float64_agrees_with_its_formula(rule: Any) -> None:
    x, gs = problem()
    wanted, size = expected(rule, x, gs)
    with jax.enable_x64(True):
        x64, gs64 = jnp.asarray(x), jnp.asarray(gs)
        assert off(run(rule, x64, gs64)[0], wanted, size) < 1e-12
        assert off(run(rule, x64, gs64, compiled(rule, x64, gs64[0]))[0], wanted, size) < 1e-12


@pytest.mark.parametrize("rule", COMPLEX, ids=name)
def test_complex_agrees_with_its_formula(rule: Any) -> None:
    x, gs = problem("complex128")
    x64, gs64 = jnp.asarray(x, jnp.complex64), jnp.asarray(gs, jnp.complex64)
    wanted, size = expected(rule, np.complex128(x64), np.complex128(gs64))
    total, step, _ = run(rule, x64, gs64, compiled(rule, x64, gs64[0]))
    assert off(total, wanted, size) < 1e-5
    assert step.dtype == jnp.complex64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("rule", [*DEFAULTS, RMSProp(centred=True), TELLING[-1]], ids=name)
def test_shape_and_dtype_are_kept(rule: Any, dtype: str) -> None:
    if dtype == "complex64" and isinstance(rule, Rprop):
        with pytest.raises(TypeError, match=r"Rprop expects a real parameter, got c64\[2\]\."):
            rule.init(jnp.zeros(2, dtype))
        return
    x, g = jnp.ones((2, 3), dtype), jnp.full((2, 3), 0.5, dtype)
    before = rule.init(x)
    for apply in (rule.apply, compiled(rule, x, g)):
        state, step = apply(before, x, g)
        step = step.dx if isinstance(step, Sometimes) else step
        if step is None:
            continue
        assert (step.shape, step.dtype) == (x.shape, x.dtype)
        assert bool(jnp.all(jnp.isfinite(step)))
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, before)
        dtypes = lambda tree: jax.tree.map(lambda s: s.dtype, tree)
        assert dtypes(state) == dtypes(before)
        wide = {np.dtype(np.int32), np.dtype(np.float32)} | (
            {x.dtype} if dtype[0] == "c" else set()
        )
        assert {s.dtype for s in jax.tree.leaves(state)} <= wide


#: A term of a formula, and the formula without it: the comparison must notice.
MUTATIONS = {
    Momentum: [("o.rho * v + ", ""), ("o.eta * g", "g")],
    Nesterov: [("-(o.rho**2) * v + ", ""), ("(1 + o.rho)", "1"), ("o.rho * v - ", "-")],
    Rprop: [("np.where(up,", "np.where(False,"), ("np.where(down, np", "np.where(False, np"),
            ("np.where(down, 0, g)", "g"), (", o.gamma[1]", ", 9"), (", o.gamma[0]", ", 0")],
    RMSProp: [("o.rho * q + ", ""), ("(1 - o.rho) * abs", "abs"), (" + o.epsilon", "")],
    AdaGrad: [("s + abs", "abs"), ("s = o.epsilon", "s = 0"), (") + o.epsilon", ")")],
    AdaDelta: [("o.rho * a + ", ""), ("o.rho * d + ", ""), ("(d + o.epsilon", "(d + 1"),
               ("(a + o.epsilon", "(a")],
    Adam: [("b1 * m + ", ""), ("b2 * v + ", ""), (" / (1 - p1)", ""), (" / (1 - p2)", ""),
           (" + o.epsilon", ""), ("(1 - b2) * abs", "abs")],
    AdamW: [("* lam * x", "* 0"), ("(o.eta if couple else 1)", "(1 if couple else o.eta)")],
    RAdam: [("rho > 4", "rho > 0"), ("rho > 4", "rho > 5"), ("* np.sqrt(r)", ""), (" * limit", ""),
            (" / (1 - p1)", ""), (" + o.epsilon", "")],
    AdaMax: [("b2 * u", "0"), (" / (1 - p1)", ""), ("b1 * m + ", ""), (" + o.epsilon", "")],
    OAdam: [(" - before", ""), ("2 * a", "a"), (" / (1 - p2)", "")],
    AMSGrad: [("np.maximum(u, v)", "v"), ("m = v = u = o.epsilon", "m = v = u = 0"),
              (") + o.epsilon", ")")],
    NAdam: [("1 - b1 * p1", "1 - p1"), (" + (1 - b1) * g / (1 - p1)", ""),
            ("* b2 /", "/")],
    AdaBelief: [("abs(g - m)", "abs(g)"), (" ** 2 + o.epsilon", " ** 2"), (" / (1 - p2)", "")],
    Lion: [("b1 * m + (1 - b1) * g", "b2 * m + (1 - b2) * g"),
           ("m = b2 * m + (1 - b2) * g", "m = b1 * m + (1 - b1) * g")],
    WeightDecay: [(" + o.lam * x", "")],
    SignDecay: [(" + o.lam * np.sign(x)", ""), ("np.sign(x)", "x")],
    ClipGrad: [("g, -o.delta", "g, -9"), (", o.delta", ", 9")],
    ClipGlobalNorm: [("* min(o.omega / np.sqrt(np.sum(abs(g) ** 2)), 1)", ""),
                     ("min(o.omega / np.sqrt(np.sum(abs(g) ** 2)), 1)",
                      "(o.omega / np.sqrt(np.sum(abs(g) ** 2)))")],
    AccumGrad: [("np.mean(", "np.sum("), ("< o.n", "< 2")],
    Muon: [("g + o.rho * v,", "v,"), ("o.rho * v + g", "g"), (" + o.lam * x", ""),
           ("np.sqrt(max(1, x.shape[1] / x.shape[0]))", "1"), ("range(5)", "range(4)"),
           ("s / (np.sqrt(np.sum(s**2)) + 1e-7)", "s / 2"), (" + 2.0315 * s**5", "")],
    ClipNorm: [("* min(o.omega / size, 1)", ""), ("min(o.omega / size, 1)", "(o.omega / size)")],
}  # fmt: skip


MUTABLE = [
    r for r in TELLING if type(r) in MUTATIONS and "p=0" not in repr(r) and r != AccumGrad(1)
]


@pytest.mark.parametrize("rule", MUTABLE, ids=name)
def test_every_term_matters(rule: Any) -> None:
    x, gs = problem()
    if isinstance(rule, (ClipNorm, ClipGlobalNorm)):
        gs[0] *= 1e-3  # one that is not clipped
    source = textwrap.dedent(inspect.getsource(ORACLES[type(rule)]))
    found, size = expected(rule, x, gs)
    for term, instead in MUTATIONS[type(rule)]:
        assert term in source
        scope: dict[str, Any] = {"np": np, "decays": decays}
        exec(source.replace(term, instead), scope)
        mutant = scope[ORACLES[type(rule)].__name__]
        with np.errstate(all="ignore"):  # without a term, a root may be of a negative number
            other = expected(rule, x, gs, mutant)[0]
        assert not off(other, found, size) < 1e-4, (term, instead)


@pytest.mark.parametrize("rule", TELLING, ids=name)
def test_every_field_reaches_the_program(rule: Any) -> None:
    """Assigning a field changes the compiled step as it changes the formula, without a trace."""
    rule = copy.deepcopy(rule)
    x, gs = (jnp.asarray(a, jnp.float32) for a in problem())
    apply = compiled(rule, x, gs[0])
    members = rule.opts[:2] if isinstance(rule, OptimiserChain) else [getattr(rule, "rule", rule)]
    for member in members:
        for field in set(fields_of(member)) - {"centred", "couple", "p", "n", "fallback"}:
            old, before = getattr(member, field), run(rule, x, gs, apply)[0]
            setattr(member, field, [v * 0.9 for v in old] if isinstance(old, tuple) else old * 0.9)
            wanted, size = expected(rule, np.float64(x), np.float64(gs))
            after = run(rule, x, gs, apply)[0]
            assert off(after, wanted, size) < 1e-5
            assert off(after, before, size) > 1e-4 or isinstance(rule, (Lion, EMA))
            setattr(member, field, old)


#: Where Optax has the same formula. It differs in: NAdam (its own), AMSGrad (corrects the bias,
#: starts at 0), AdaMax (ϵ inside the maximum), AdaGrad (ϵ inside the root only), OAdam (the last
#: gradient instead of the last step), RAdam's default threshold (5), RMSProp's place of ϵ by
#: default, Rprop (its first step has η's sign only).
SAME_IN_OPTAX = [
    (Descent(0.3), optax.sgd(0.3)),
    (Momentum(0.3, 0.7), optax.sgd(0.3, 0.7)),
    (Nesterov(0.3, 0.7), optax.sgd(0.3, 0.7, nesterov=True)),
    (RMSProp(0.3, 0.7, 0.1), optax.rmsprop(0.3, 0.7, 0.1, eps_in_sqrt=False)),
    (AdaDelta(0.7, 0.1), optax.adadelta(1.0, 0.7, 0.1)),
    (Adam(0.3, (0.7, 0.9), 0.1), optax.adam(0.3, 0.7, 0.9, 0.1)),
    (AdamW(0.3, (0.7, 0.9), 0.2, 0.1), optax.adamw(0.3, 0.7, 0.9, 0.1, weight_decay=0.2)),
    (RAdam(0.3, (0.7, 0.95), 0.1), optax.radam(0.3, 0.7, 0.95, 0.1, threshold=4.0)),
    (Lion(0.3, (0.6, 0.95)), optax.lion(0.3, 0.6, 0.95, weight_decay=0.0)),
    (AdaBelief(0.3, (0.7, 0.9), 1e-16), optax.adabelief(0.3, 0.7, 0.9, 1e-16, eps_root=1e-16)),
    (OptimiserChain(WeightDecay(0.3), Descent(1)),
     optax.chain(optax.add_decayed_weights(0.3), optax.sgd(1.0))),
    (OptimiserChain(ClipGrad(0.7), Descent(1)), optax.chain(optax.clip(0.7), optax.sgd(1.0))),
    (OptimiserChain(ClipNorm(0.7), Descent(1)),
     optax.chain(optax.clip_by_global_norm(0.7), optax.sgd(1.0))),
]  # fmt: skip


@pytest.mark.parametrize("rule, theirs", SAME_IN_OPTAX, ids=lambda v: name(v)[:40])
def test_agrees_with_optax(rule: Any, theirs: Any) -> None:
    x, gs = (jnp.asarray(a, jnp.float32) for a in problem())
    found, y, state = run(rule, x, gs)[0], x, theirs.init(x)
    update = jax.jit(theirs.update)
    for g in gs:
        step, state = update(g, state, y)
        y = y + step
    assert np.allclose(found, x - y, rtol=1e-5, atol=1e-5)


GOLDEN = json.loads((Path(__file__).parent / "golden" / "rules.json").read_text())[
    "after ten steps"
]


@pytest.mark.parametrize("source", GOLDEN)
def test_agrees_with_pytorch(source: str) -> None:
    """In float64; where the formulas differ is said in `golden/make_rules.py`."""
    x, gs = problem()
    rule = eval(source, {cls.__name__: cls for cls in ORACLES})
    with jax.enable_x64(True):
        total = run(rule, jnp.asarray(x), jnp.asarray(gs))[0]
    tolerance = 1e-6 if "1e-8" in source else 1e-10  # PyTorch has that ϵ elsewhere
    np.testing.assert_allclose(x - total, GOLDEN[source], rtol=tolerance, atol=tolerance)


def test_momentum_in_a_known_case() -> None:
    """The worked example in the documentation of Flux.setup: two steps on one observation."""
    rule, x, y = Momentum(0.1), jnp.array([0.2, -0.3]), 0.4
    model = (jnp.ones(2), jnp.array(0.0))
    loss = lambda m: 100 * jnp.abs(jax.nn.leaky_relu(m[0] @ x + m[1]) - y)
    states = tuple(rule.init(p) for p in model)
    for _ in range(2):
        new = [rule.apply(*args) for args in zip(states, model, jax.grad(loss)(model))]
        states = tuple(state for state, _ in new)
        model = tuple(p - step for p, (_, step) in zip(model, new))
    assert float(model[1]) == pytest.approx(10.19, rel=1e-6)
    assert float(states[1]) == pytest.approx(-10.09, rel=1e-6)
    assert np.allclose(states[0], [-2.018, 3.027], rtol=1e-5)
