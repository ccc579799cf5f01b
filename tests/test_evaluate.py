"""evaluate: one compiled call for each item, in test mode, all results in one array."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

X = np.random.default_rng(0).normal(size=(23, 4)).astype("float32")
Y = (np.arange(23) % 3).astype("int32")


def model():
    return fx.Chain(fx.Dense(4, 8, fx.relu, rng=1), fx.Dropout(0.5), fx.Dense(8, 3, rng=2))


DATA = [
    ("a loader", lambda: fx.DataLoader((X, Y), 4)),
    ("a list", lambda: [(X[:10], Y[:10]), (X[10:], Y[10:])]),
    ("a generator", lambda: ([X[i : i + 5], Y[i : i + 5]] for i in range(0, 23, 5))),
]


@pytest.mark.parametrize("name, data", DATA, ids=[name for name, _ in DATA])
def test_something_for_each_observation_is_joined(name, data):
    m = model()
    with fx.strict():
        hits = fx.evaluate(lambda m, x, y: fx.onecold(m(x)) == y, m, data())
        outputs = fx.evaluate(lambda m, x, y: {"y": m(x), "n": len(x)}, m, data())
    assert hits.dtype == bool
    np.testing.assert_array_equal(hits, np.argmax(m(X), -1) == Y)
    np.testing.assert_allclose(outputs["y"], m(X), rtol=1e-5, atol=1e-6)
    assert outputs["n"].sum() == 23


def test_a_loss_gives_one_value_for_each_item_and_changes_nothing():
    m = fx.Chain(fx.Dense(4, 3, rng=1), fx.BatchNorm(3))
    loss = lambda m, x, y: fx.logitcrossentropy(m(x), y)
    before = fx.destructure(m)[0] if hasattr(fx, "destructure") else m.layers[1].mu
    losses = fx.evaluate(loss, m, fx.DataLoader((X, Y), 5))
    assert losses.shape == (5,)
    want = [float(loss(m, X[i : i + 5], Y[i : i + 5])) for i in range(0, 23, 5)]
    np.testing.assert_allclose(losses, want, rtol=1e-5)
    after = fx.destructure(m)[0] if hasattr(fx, "destructure") else m.layers[1].mu
    np.testing.assert_array_equal(before, after)


def test_new_lambdas_and_trained_models_use_one_program_for_each_shape():
    fx.clear_cache()
    m, loader = model(), fx.DataLoader((X, Y), 4, shuffle=True)
    opt_state = fx.setup(fx.Descent(0.1), m)
    seen = []
    for _ in range(3):
        fx.train(lambda m, x, y: fx.logitcrossentropy(m(x), y), m, loader, opt_state)
        scores = fx.evaluate(lambda m, x, y: fx.logitcrossentropy(m(x), y), m, loader)
        seen.append(float(scores.mean()))
    assert len(set(seen)) == 3
    assert fx.explain()[-1].traces == 2  # whole batches, and the last one


def test_many_results_and_a_batch_that_is_no_tuple():
    items = [jnp.full((2,), i) for i in range(300)]
    assert fx.evaluate(lambda m, x: x * m, 2, items).tolist() == [
        2 * i for i in range(300) for _ in "ab"
    ]


def test_sentences():
    with pytest.raises(TypeError) as caught:
        fx.evaluate(model(), X, lambda m, x: x)
    assert str(caught.value) == (
        "evaluate expects an iterable of batches, got the function <lambda>. "
        "Write [(x, y)] for a single batch."
    )
    with pytest.raises(TypeError) as caught:
        fx.evaluate(X, model(), lambda m, x: x)
    assert str(caught.value) == (
        "evaluate expects a function first, got f32[23,4]. The order is evaluate(f, model, data)."
    )
    with pytest.raises(ValueError, match="joined along their first axis, got others: "):
        fx.evaluate(lambda m, x: x.T, 1, [X[:2], X[:3]])
    with pytest.warns(UserWarning, match="evaluate found no data") as caught:
        assert fx.evaluate(lambda m, x: x, 1, []).shape == (0,)
    assert caught[0].filename == __file__
