"""Half precision against float32: every activation, loss and layer, ordinary, large and small.

What is computed of half-precision numbers is what float32 gives for the same numbers, rounded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.test_activations import TABLE
from tests.test_layers import LAYERS, Row, draw, floats, given, with_floats
from tests.test_losses import CASES, Case

DTYPES, SCALES = ("float16", "bfloat16"), (1.0, 1e3, 1e-4)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def program(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as one program, in which each half-precision number is rounded, as in one call a time."""
    return jax.jit(f, compiler_options={"xla_allow_excess_precision": False})


def rounded(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda a: np.asarray(jnp.asarray(a, dtype), "f4"), tree)


def close(
    half: Any, single: Any, dtype: str, most: float, at: object = "", noise: float = 0.0
) -> None:
    """Within so many roundings of the largest; infinite where that is out of the type's range."""
    eps = float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(single), strict=True):
        assert a.dtype == dtype
        a, b = rounded(a, dtype), rounded(b, dtype)
        largest = np.abs(b[np.isfinite(b)]).max(initial=0)
        within = most * eps * largest + noise * float(jnp.finfo("float32").eps)
        np.testing.assert_allclose(a, b, rtol=0, atol=within, err_msg=f"{dtype}, {at}")


# --- activations --------------------------------------------------------------------------

AXIS: list[Any] = [(name, {}, None) for name in ("softmax", "logsoftmax", "glu")]


@pytest.mark.parametrize("row", [*TABLE, *AXIS], ids=[f"{r[0]}-{r[1]}" for r in [*TABLE, *AXIS]])
def test_activations(row: Any) -> None:
    name, options, _ = row

    @program
    def both(x: Any) -> Any:
        y, pull = jax.vjp(lambda x: getattr(fx, name)(x, **options), x)
        return y, pull(jnp.asarray(np.resize([1.0, -0.5, 2.0], y.shape), x.dtype))[0]

    for dtype, scale in itertools.product(DTYPES, SCALES):
        x = jnp.asarray(np.linspace(-8, 8, 82) * scale, dtype)
        close(both(x), both(x.astype("float32")), dtype, most=0, at=scale)


# --- losses -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[f"{i} {c.name}" for i, c in enumerate(CASES)])
@dtypes
def test_losses(case: Case, dtype: str) -> None:
    added = {"eps": float(jnp.finfo(dtype).eps)} if "eps" in case.loss.__kwdefaults__ else {}
    options, y = {**added, **case.options}, jnp.asarray(case.y, dtype)
    f = program(jax.value_and_grad(lambda x: case.loss(x, y.astype(x.dtype), **options)))
    for scale in SCALES:
        if "focal" in case.name:
            scale = min(scale, 1.0)  # 1 - p is floored at the type's ϵ
        x = jnp.asarray(case.y_hat * scale, dtype)
        close(f(x), f(x.astype("float32")), dtype, most=1, at=scale)


# --- layers -------------------------------------------------------------------------------


KINDS = {"ordinary": (1, 1), "large input": (1e3, 1), "small input": (1e-4, 1)}
KINDS |= {"large weights": (1, 1e3), "small weights": (1, 1e-4)}
#: Large numbers make the softmax one-hot: its derivative is 0, but for noise that is multiplied by
#: all of them. There only the output is compared.
SATURATED = [("MultiHeadAttention", kind) for kind in ("large input", "large weights")]


@pytest.mark.filterwarnings("ignore:.*wrote its state")  # a plain jax.grad, on purpose
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    row, seen = LAYERS[name], set[str]()
    fx.seed(0)
    layer, c = row.make(), draw(row.comes, 5)

    def run(weights: Any, x: Any) -> Any:
        def loss(weights: Any, x: Any) -> Any:
            y = with_floats(layer, weights)(x)
            return jnp.sum(y.astype("float32") * c), y

        by = (0,) if row.below else (0, 1)
        (_, y), grads = jax.value_and_grad(loss, by, has_aux=True)(weights, x)
        return y, grads

    for mode in (fx.testmode, fx.trainmode):
        mode(layer)
        text = str(jax.make_jaxpr(run)(floats(layer), given(row)))
        if text not in seen:  # most layers do the same in both modes
            compare(row, layer, program(lambda *inputs: run(*inputs)), mode.__name__, name)
        seen.add(text)


def compare(row: Row, layer: Any, run: Callable[..., Any], mode: str, name: str) -> None:
    """Numbers of every size, in both types, against float32."""
    for dtype, kind in itertools.product(DTYPES, KINDS):
        scale, by = KINDS[kind]
        weights = [jnp.asarray(w * by, dtype) for w in floats(layer)]
        x = given(row) if row.below else jnp.asarray(given(row) * scale, dtype)
        single = [w.astype("float32") for w in weights]
        found = run(single, x if row.below else x.astype("float32"))
        half = run(weights, x)
        if (name, kind) in SATURATED:
            half, found = half[0], found[0]
        # what cancels leaves float32's own noise, of the size of what cancelled
        close(half, found, dtype, most=8, noise=4 * by, at=f"{mode}, {kind}")


#: What adds up so many numbers, 1 each, that half precision would stall at 256 or 2,048.
MANY = 20_000


def slope(layer: Any, x: Any, name: str) -> Any:
    return getattr(fx.gradient(lambda m: jnp.sum(m(x), dtype="float32"), layer)[0], name)


def long(*shape: int) -> Any:
    return np.ones(shape, np.float32)


SUMS: dict[str, Callable[[Any], Any]] = {
    "Dense": lambda cast: slope(cast(fx.Dense(1, 1)), long(MANY, 1), "bias"),
    "Scale": lambda cast: slope(cast(fx.Scale(1)), long(MANY, 1), "scale"),
    "Scale's bias": lambda cast: slope(cast(fx.Scale(1)), long(MANY, 1), "bias"),
    "Bilinear": lambda cast: slope(cast(fx.Bilinear(1, 1)), long(MANY, 1), "bias"),
    "Conv": lambda cast: slope(cast(fx.Conv((3,), 1, 1, pad=1)), long(1, MANY, 1), "bias"),
    "Conv of one": lambda cast: slope(cast(fx.Conv((1,), 1, 1)), long(1, MANY, 1), "bias"),
    "ConvTranspose": lambda cast: slope(
        cast(fx.ConvTranspose((3,), 1, 1, pad=1)), long(1, MANY, 1), "bias"
    ),
    "LayerNorm": lambda cast: slope(cast(fx.LayerNorm(1)), long(MANY, 1), "bias"),
    "BatchNorm": lambda cast: slope(cast(fx.BatchNorm(1)), long(MANY, 1), "bias"),
    "Embedding": lambda cast: slope(cast(fx.Embedding(1, 1)), np.zeros(MANY, int), "weight"),
    "EmbeddingBag": lambda cast: cast(fx.EmbeddingBag(1, 1, jnp.sum, init=fx.ones32))(
        np.zeros(MANY, int), np.array([0])
    ),
    "EmbeddingBag's table": lambda cast: slope(
        cast(fx.EmbeddingBag(1, 1, jnp.sum)), np.zeros((1, MANY), int), "weight"
    ),
    "MeanPool": lambda cast: MANY * fx.MeanPool((MANY,))(jnp.asarray(long(1, MANY, 1), cast(0.0))),
    "Upsample": lambda cast: jax.grad(
        lambda x: fx.Upsample("nearest", size=(MANY,))(x).sum(dtype="float32")
    )(jnp.asarray(long(1, 1, 1), cast(0.0))),
    "RNN": lambda cast: jnp.sum(
        slope(cast(fx.RNN(1, 1, fx.identity, init=fx.zeros32)), long(1, MANY, 1), "cell").bias
    ),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("kernels", ["own", "plain"])
@dtypes
def test_long_sums(name: str, kernels: str, dtype: str) -> None:
    cast: Any = {"float16": fx.f16, "bfloat16": fx.bf16}[dtype]
    to = lambda what: dtype if isinstance(what, float) else cast(what)
    with fx.kernels.choose(kernels):
        fx.clear_cache()
        np.testing.assert_allclose(np.float32(SUMS[name](to)).ravel(), MANY, rtol=4e-3)


@dtypes
def test_a_running_mean_follows(dtype: str) -> None:
    """A GRU with a gate of nearly one moves by less than half precision could add."""
    layer = fx.GRU(1, 1, init=fx.zeros32)
    layer.cell.bias = jnp.array([0.0, 6.0, 20.0])  # z = σ(6), candidate 1
    y = np.float32({"float16": fx.f16, "bfloat16": fx.bf16}[dtype](layer)(long(1, 2000, 1)))
    assert y[0, -1, 0] > 0.99
