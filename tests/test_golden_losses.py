"""Losses against PyTorch's numbers, where the definitions agree (`golden/make_losses.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fluxax as fx

FILE = Path(__file__).with_name("golden") / "losses.json"
CASES = json.loads(FILE.read_text("utf-8"))["cases"]
OPTIONS = {"axis=1": {"axis": 1}, "eps=0": {"eps": 0.0}, "delta=0.5": {"delta": 0.5}, "": {}}


def smoothed(y_hat: Any, y: Any, **options: Any) -> Any:
    return fx.logitcrossentropy(y_hat, fx.label_smoothing(y, 0.2), **options)


@pytest.mark.parametrize("case", CASES, ids=[f"{i} {c['loss']}" for i, c in enumerate(CASES)])
def test_numbers_of_pytorch(case: dict[str, Any]) -> None:
    name, _, option = case["loss"].partition(" ")
    loss = smoothed if name == "smoothed" else getattr(fx.losses, name)
    options = OPTIONS[option]
    y_hat, y = np.asarray(case["y_hat"], np.float32), np.asarray(case["y"])
    y = y.astype(np.float32) if y.dtype.kind == "f" else y
    values = loss(y_hat, y, agg=fx.identity, **options)
    np.testing.assert_allclose(values, case["values"], rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda a: loss(a, y, **options))(y_hat)
    most = np.abs(case["grad"]).max()
    np.testing.assert_allclose(grad, case["grad"], rtol=1e-5, atol=1e-5 * most)
