"""`python -m fluxax` is one screen with everything that a bug report needs."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import fluxax as fx
from fluxax import __main__ as main
from fluxax import _jax, _jax_parts


def test_it_runs_and_says_what_is_there() -> None:
    environment = {**os.environ, "FLUXAX_KERNELS": "plain", "FLUXAX_CACHE": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fluxax"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for word in (
        f"fluxax {fx.__version__}",
        f"JAX {jax.__version__}, one that was tried ({_jax.tried_versions()})",
        f"numpy {np.__version__}",
        "optax ",
        "equinox ",
        f"of {jax.default_backend()}",
        "cores for this process",
        "FLUXAX_KERNELS=plain",
        "kernels: plain formulas",
        "compilation cache: none",
        "a step with a convolution: ",
    ):
        assert word in text, text
    for part in _jax_parts.PARTS:
        assert f"{part.name}: holds. " in text
    assert len(text.splitlines()) < 40


def test_options_are_shown_with_their_reasons() -> None:
    lines = list(main.report())
    at = lines.index("XLA options:")
    assert "xla_cpu_experimental_ynn_fusion_type=" not in lines[at + 1]
    assert "xla_cpu_experimental_ynn_fusion_type=" in lines[at + 2]
    assert any(line.endswith(": its convolutions are slow") for line in lines)


def test_what_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jax, "_clear_all_caches", None)
    (line,) = [line for line in main.report() if line.startswith("  forget: ")]
    assert "DOES NOT HOLD (TypeError: " in line
    assert "compiled programs are forgotten too" in line


def test_nothing_is_tested_when_fluxax_is_imported() -> None:
    code = (
        "import fluxax; from fluxax import _jax_parts as p, _jax; "
        "from jax._src import xla_bridge as b; "
        "print(p._sentences.cache_info().currsize, _jax.no_trace.cache_info().currsize, "
        "b.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "False"], done.stderr
