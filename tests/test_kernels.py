"""Every kernel against its plain formula, with every derivative; options and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import kernels
from fluxax.kernels import _memory, _options


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(shape) for shape in shapes]


def image(stride: int, pad: int, groups: int, *, plain: bool) -> Callable[..., Any]:
    conv = kernels.plain_conv if plain else kernels.conv
    pads = ((pad, pad), (pad, pad))
    return lambda x, w, b: conv(x, w, b, (stride, stride), pads, (1, 1), groups)


def pair(stride: int, pad: int, groups: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return image(stride, pad, groups, plain=False), image(stride, pad, groups, plain=True)


#: By name: the kernel, its plain formula, the shapes of its arguments.
KERNELS: dict[str, Any] = {
    "settled": (kernels.settled, lambda x: x, [(3, 2)]),
    "dense": (kernels.dense, kernels.plain_dense, [(3, 2), (2, 4), (4,)]),
    "dense, no bias": (kernels.dense, kernels.plain_dense, [(3, 2), (2, 4)]),
    "conv": (*pair(1, 1, 1), [(1, 3, 20, 1), (2, 2, 1, 1), (1,)]),
    "conv, banded": (*pair(2, 0, 1), [(2, 5, 5, 2), (3, 3, 2, 2), (2,)]),
    "conv, stride, groups": (*pair(2, 0, 2), [(1, 5, 5, 2), (2, 2, 1, 2), (2,)]),
    "conv, one place": (*pair(2, 0, 1), [(1, 3, 3, 2), (1, 1, 2, 3), (3,)]),
    "batchnorm": (
        lambda *xs: kernels.batchnorm(*xs, 1e-5),
        lambda *xs: kernels.plain_batchnorm(*xs, 1e-5),
        [(3, 2, 2), (2,), (2,)],
    ),
    "lstm": (kernels.lstm, kernels.plain_lstm, [(3, 2, 8), (2, 8), (2, 2), (2, 2)]),
}


def scalar(f: Callable[..., Any]) -> Callable[..., Any]:
    """A number that depends on all that a kernel returns, and not linearly."""

    def number(*xs: Any) -> Any:
        return sum(jnp.sum(jnp.sin(y * (k + 1.0))) for k, y in enumerate(jax.tree.leaves(f(*xs))))

    return number


def derivative(f: Callable[..., Any], law: str) -> Callable[..., Any]:
    """What a law compares, as a function of a kernel's arguments."""
    if law == "value":
        return f
    every = lambda xs: tuple(range(len(xs)))
    number = scalar(f)
    grad = lambda *xs: jax.grad(number, every(xs))(*xs)
    if law == "grad":
        return grad
    if law == "jvp":
        return lambda *xs: jax.jvp(f, xs, tuple(jnp.cos(x) for x in xs))
    if law == "hessian":
        return lambda *xs: jax.hessian(number, every(xs))(*xs)
    if law == "grad of grad":
        inner = lambda *xs: sum(jnp.sum(jnp.cos(g)) for g in grad(*xs))
        return lambda *xs: jax.grad(inner, every(xs))(*xs)
    return lambda *xs: jax.vmap(grad)(*(jnp.stack([x, 2 * x]) for x in xs))


LAWS = ("value", "grad", "jvp", "hessian", "grad of grad", "vmap")
#: A hessian is the slowest to compile; these kernels have rules of their own below.
ALL_LAWS = ("dense", "conv, banded", "batchnorm", "lstm")
CASES = [
    pytest.param(name, law, marks=[pytest.mark.slow] if law == "hessian" else [])
    for name in KERNELS
    for law in (LAWS if name in ALL_LAWS else ("value", "grad", "jvp"))
]


def apart(found: Any, wanted: Any) -> float:
    """The largest relative difference of two trees of arrays, in norm."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    scale = max(float(jnp.linalg.norm(w.astype(float).ravel())) for w in jax.tree.leaves(wanted))
    return max(float(jnp.linalg.norm((a - b).astype(float).ravel())) for a, b in pairs) / scale


def both(name: str, law: str, dtype: Any) -> tuple[Any, Any]:
    """What a kernel gives, and what its plain formula gives."""
    kernel, plain, shapes = KERNELS[name]
    xs = [jnp.asarray(x, dtype) for x in drawn(*shapes)]
    with kernels.choose("own"):
        found = jax.jit(derivative(kernel, law))(*xs)
    return found, jax.jit(derivative(plain, law))(*xs)


@pytest.mark.parametrize("name, law", CASES)
def test_as_the_plain_formula(name: str, law: str) -> None:
    with jax.enable_x64(True):
        assert apart(*both(name, law, np.float64)) < 1e-12


@pytest.mark.parametrize("name", KERNELS)
def test_in_single_precision(name: str) -> None:
    assert apart(*both(name, "grad", np.float32)) < 1e-5


@pytest.mark.parametrize("name", KERNELS)
def test_in_half_precision(name: str) -> None:
    found, wanted = both(name, "grad", jnp.bfloat16)
    assert all(a.dtype == b.dtype for a, b in zip(found, wanted, strict=True))
    assert apart(found, wanted) < 0.1


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: fx.Dense(3, 2, fx.relu), (4, 3)),
        (lambda: fx.Chain(fx.Conv((1, 1), 2, 3, stride=2), fx.BatchNorm(3, fx.relu)), (2, 5, 5, 2)),
        (lambda: fx.LayerNorm(4), (3, 4)),
        (lambda: fx.Chain(fx.LSTM(3, 4), lambda y: y[:, -1]), (2, 5, 3)),
    ],
)
def test_layers_have_one_gradient(layer: Any, shape: tuple[int, ...]) -> None:
    model, x = layer(), jnp.asarray(drawn(shape)[0], jnp.float32)
    found = fx.gradient(lambda m: jnp.sum(jnp.sin(m(x))), model)[0]
    with kernels.choose("plain"):
        wanted = fx.gradient(lambda m: jnp.sum(jnp.sin(m(x))), model)[0]
    assert apart(found, wanted) < 1e-5


def test_barriers_stay_where_they_are_put() -> None:
    def twice(x: Any) -> Any:
        y = kernels.settled(jnp.where(x < 0, 0, 2 * x))
        return jnp.sum(jnp.sin(y))

    with kernels.choose("own"):
        grad = jax.jit(jax.grad(twice), compiler_options=kernels.options_for(_jaxpr(twice), "cpu"))
    x = jnp.ones((64, 64))
    assert "opt-barrier" in grad.lower(x).compile().as_text()


def _jaxpr(f: Callable[..., Any], *shape: int) -> Any:
    return jax.make_jaxpr(f)(jnp.ones(shape or (4, 4)))


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (2, 4), (3, 16)], ids=str)
def test_a_convolution_that_ended_the_process(size: tuple[int, int]) -> None:
    layer = fx.Conv((3, 2) if size[1] % 2 == 0 else (2, 3), 16, 16, stride=2, pad=1, rng=0)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, *size, 16)), "float32")
    loss = lambda m, x: jnp.sum(m(x) ** 2)
    with fx.kernels.choose("plain"):
        grads = fx.gradient(loss, layer, x)
    before = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.lax.conv_general_dilated(
        before, layer.weight, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer(x), y + layer.bias, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads[0].bias, 2 * jnp.sum(y, (0, 1, 2)), rtol=1e-4, atol=1e-4)
    assert grads[1].shape == x.shape


# --- choice and options -------------------------------------------------------------------


def test_plain_formulas_have_no_rules_of_their_own() -> None:
    x, w = jnp.ones((2, 3)), jnp.ones((3, 2))
    shown = {}
    for which in ("own", "plain"):
        with kernels.choose(which):
            shown[which] = str(jax.make_jaxpr(lambda x, w: kernels.dense(x, w))(x, w))
    assert "custom_jvp" in shown["own"]
    assert "custom_jvp" not in shown["plain"]


def test_unknown_choice() -> None:
    sentence = r"^choose expects one of auto, own, plain, got 'fast'\.$"
    with pytest.raises(ValueError, match=sentence), kernels.choose("fast"):
        pass


def convolution(x: Any) -> Any:
    return jax.jit(image(1, 0, 1, plain=True))(x[None, :, :, None], jnp.ones((2, 2, 1, 1)), None)


@pytest.fixture
def no_flags(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("FLUXAX_XLA", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_rule_for_options(no_flags: pytest.MonkeyPatch) -> None:
    pieces = {_options.PIECES: _options.PIECE}
    held = {_options.DISABLED: _options.BARRIERS, **pieces}
    with kernels.choose("own"):
        assert kernels.options_for(_jaxpr(jnp.sin), "cpu") == held
        assert kernels.options_for(_jaxpr(convolution), "cpu") == {**held, _options.YNNPACK: ""}
        assert kernels.options_for(_jaxpr(convolution), "gpu") is None
        assert kernels.options_for(None, "cpu") is None
    with kernels.choose("plain"):
        assert kernels.options_for(_jaxpr(jnp.sin), "cpu") == pieces
    assert _options._since((0, 10), "0.10.2")
    assert not _options._since((0, 10), "0.9.1")


def test_a_piece_of_memory_holds_the_largest_array(no_flags: pytest.MonkeyPatch) -> None:
    big = lambda x: jnp.sum(jnp.outer(x, x))
    assert kernels.options_for(_jaxpr(big, 4096), "cpu")[_options.PIECES] == 4 * 4096**2
    turns = lambda x: jax.lax.scan(lambda c, _: (big(x) + c, None), 0.0, None, length=10)[0]
    assert kernels.options_for(_jaxpr(turns, 2048), "cpu")[_options.PIECES] == 40 * 2048**2


def test_a_program_kept_on_disk_has_one_block_of_memory(
    no_flags: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def loss(w: Any, x: Any) -> Any:  # some 16 MB for each intermediate result
        for _ in range(6):
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    w, x = jnp.eye(64), jnp.ones((1 << 16, 64))
    fx.compilation_cache(tmp_path)
    try:
        assert _options.PIECES not in (kernels.options_for(_jaxpr(jnp.sin), "cpu") or {})
        fx.gradient(loss, w, x)  # JAX warns if it cannot keep it, and warnings are errors
    finally:
        fx.compilation_cache(None)
    assert any("gradient" in path.name for path in tmp_path.iterdir())
    assert _options.PIECES in (kernels.options_for(_jaxpr(jnp.sin), "cpu") or {})


def test_the_environment_goes_first(no_flags: pytest.MonkeyPatch) -> None:
    no_flags.setenv("XLA_FLAGS", f"--{_options.YNNPACK}=LIBRARY_FUSION_TYPE_DOT")
    assert _options.YNNPACK not in (kernels.options_for(_jaxpr(convolution), "cpu") or {})
    no_flags.setenv("FLUXAX_XLA", "--xla_a=1 xla_b= xla_c=true")
    wanted = {"xla_a": "1", "xla_b": "", "xla_c": True}
    assert kernels.options_for(_jaxpr(convolution), "cpu") == wanted
    no_flags.setenv("FLUXAX_XLA", "")
    assert kernels.options_for(_jaxpr(convolution), "cpu") is None
    no_flags.setenv("FLUXAX_XLA", "fast")
    with pytest.raises(
        ValueError, match=r"^FLUXAX_XLA expects words like `name=value`, got 'fast'"
    ):
        kernels.options_for(_jaxpr(convolution), "cpu")


# --- memory -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment, wanted",
    [
        ({"FLUXAX_KEEP_MEMORY": "1"}, True),
        ({}, True),
        ({"FLUXAX_KEEP_MEMORY": "0"}, False),
        ({"MALLOC_ARENA_MAX": "4"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, False),
        ({"GLIBC_TUNABLES": "glibc.rtld.nns=2"}, True),
    ],
)
def test_memory_is_kept_unless_somebody_said_otherwise(
    environment: dict[str, str], wanted: bool
) -> None:
    assert _memory.wanted(environment) is wanted


def test_memory_is_not_kept_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown, raising=False)
    assert kernels.keep_memory() is False


def test_a_program_that_cannot_hold_its_barriers_is_compiled_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluxax.kernels._options.may_loop", lambda _: False)  # as if it saw no loop
    cell = fx.Dense(2, 2, fx.tanh, init=fx.ones32)

    def loss(m: Any, x: Any) -> Any:
        return jnp.sum(jax.lax.scan(lambda h, v: (m(h + v), None), x[0], x)[0])

    x = jnp.ones((3, 1, 2))
    grads = fx.gradient(loss, cell, x)
    with fx.kernels.choose("plain"):
        wanted = jax.grad(lambda w: loss(fx.Dense(w, jnp.zeros(2), fx.tanh), x))(cell.weight)
    assert apart([grads[0].weight], [wanted]) < 1e-5
    opt_state = fx.setup(fx.Descent(0.1), cell)
    assert jnp.isfinite(fx.trainstep(loss, cell, (x,), opt_state))
