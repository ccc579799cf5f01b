"""Bad input to rules and to `setup`: a sentence that says what to do, and nothing is changed."""

from __future__ import annotations

import re
from typing import Any

import optax
import pytest

import fluxax as fx
from tests.test_messages import other, world
from tests.witness import snapshot

SHRINK = optax.scale(0.5)

BAD: dict[str, tuple[type[Exception], str, Any]] = {
    "field that a rule has not": (
        AttributeError,
        "Adam expects one of its fields (beta, epsilon, eta), got `lr`.",
        lambda w: setattr(w.tree.layers.enc.weight.rule, "lr", 0.1),
    ),
    "no micro-batches": (
        ValueError,
        "AccumGrad expects `n` of at least 1, got 0.",
        lambda w: fx.AccumGrad(0),
    ),
    "half a micro-batch": (
        TypeError,
        "AccumGrad expects `n` to be a whole number, got 2.5.",
        lambda w: fx.AccumGrad(2.5),
    ),
    "average of all": (
        ValueError,
        "EMA expects `decay` in [0, 1), got 1.",
        lambda w: fx.EMA(1),
    ),
    "mixed precision inside": (
        ValueError,
        "OptimiserChain expects MixedPrecision to be outermost. "
        "Write MixedPrecision(OptimiserChain(...)).",
        lambda w: fx.OptimiserChain(fx.MixedPrecision(fx.Adam()), fx.EMA()),
    ),
    "mixed precision with integers": (
        TypeError,
        "MixedPrecision expects `dtype` to be a floating one, got 'int32'.",
        lambda w: fx.MixedPrecision(fx.Adam(), "int32"),
    ),
    "mixed precision of a class": (
        TypeError,
        "MixedPrecision expects a rule, got the class Adam. Write Adam().",
        lambda w: fx.MixedPrecision(fx.Adam),
    ),
    "Muon's fallback": (
        TypeError,
        "Muon expects a rule such as fx.Adam(1e-3), got 0.1.",
        lambda w: fx.Muon(fallback=0.1),
    ),
    "average inside": (
        ValueError,
        "OptimiserChain expects a chain with EMA in it to stand last, got one before Adam.",
        lambda w: fx.OptimiserChain(fx.OptimiserChain(fx.EMA()), fx.Adam()),
    ),
    "prefix of nothing": (
        ValueError,
        "setup expects prefixes of paths to arrays, got 'layers.encoder', which no array's path "
        "begins with. There are: layers.enc, layers.dec.",
        lambda w: fx.setup({"layers.encoder": fx.Adam()}, w.model),
    ),
    "no rule at a prefix": (
        TypeError,
        "setup expects a rule, got the class Adam. Write Adam() as the rule of 'layers.enc'.",
        lambda w: fx.setup({"layers.enc": fx.Adam}, w.model),
    ),
    "no rule from a function": (
        TypeError,
        "setup expects a rule such as fx.Adam(1e-3), got 0.1 as the function's result for "
        "layers.enc.weight.",
        lambda w: fx.setup(lambda path, x: 0.1, w.model),
    ),
    "no average": (
        ValueError,
        "ema expects a state tree with an EMA in its rules, got none. "
        "Write setup(OptimiserChain(rule, EMA(0.999)), model).",
        lambda w: fx.ema(w.tree, w.model),
    ),
    "average of another model": (
        ValueError,
        "ema expects the state tree of this model",
        lambda w: fx.ema(w.tree, other()),
    ),
    "rules of two orders": (
        ValueError,
        "to stand in one order in all chains, got two orders.",
        lambda w: fx.update(
            fx.setup(
                {
                    "layers.enc": fx.OptimiserChain(SHRINK, fx.ClipGlobalNorm(), fx.Adam()),
                    "layers.dec": fx.OptimiserChain(fx.ClipGlobalNorm(), SHRINK, fx.Adam()),
                },
                w.model,
            ),
            w.model,
            w.grads[0],
        ),
    ),
    "adjust a rate where there is none": (
        ValueError,
        "adjust expects a field of WeightDecay (lam), got `eta`.",
        lambda w: fx.adjust(fx.setup(fx.WeightDecay(), w.model), 0.1),
    ),
}


@pytest.mark.parametrize("error, sentence, call", BAD.values(), ids=list(BAD))
def test_bad_input(error: Any, sentence: str, call: Any) -> None:
    w = world()
    before = snapshot(w.model, w.tree)
    with pytest.raises(error, match=re.escape(sentence)):
        call(w)
    assert snapshot(w.model, w.tree) == before
