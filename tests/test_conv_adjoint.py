"""Conv and ConvTranspose of the same arguments are each other's transpose, whatever they are."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import fluxax as fx

PADS = [0, 1, (1, 2), "same"]


def settings() -> list[Any]:
    """Every stride, pad, dilation and group for each kernel, one to three axes of space."""
    found = []
    for k, stride, pad, dilation, groups in product(
        (1, 2, 3, 4, 5), (1, 2, 3), PADS, (1, 2), (1, 2)
    ):
        found.append(((k,), stride, pad, dilation, groups))
    several = [((2, 3), (2, 3)), ((4, 5), (3, 2)), ((5, 2), 2), ((3, 2, 4), (2, 1, 3))]
    for (kernel, stride), pad, dilation, groups in product(several, PADS, (1, 2), (1, 2)):
        n = len(kernel)
        found.append((kernel, stride, pad * n if isinstance(pad, tuple) else pad, dilation, groups))
    return found


def adjoint(kernel: Any, stride: Any, pad: Any, dilation: int, groups: int, flip: bool) -> None:
    options = {"stride": stride, "dilation": dilation, "groups": groups, "bias": False}
    options |= {"pad": pad, "flipkernel": flip}
    conv = fx.Conv(kernel, 4, 6, rng=1, **options)
    rng, n = np.random.default_rng(2), len(kernel)
    x = rng.normal(size=(2, *(12, 11, 13)[:n], 4)).astype("f")
    if pad == "same":  # as many places as whole strides
        whole = [s * (m // s) for m, s in zip(x.shape[1:], np.resize(stride, n), strict=False)]
        x = x[(slice(None), *map(slice, whole))]
    y = np.asarray(conv(x))
    back = fx.ConvTranspose(kernel, 6, 4, outpad=0, **options)
    back.weight = conv.weight.swapaxes(-1, -2)
    reached = back(y).shape[1:-1]
    back.outpad = tuple(m - r for m, r in zip(x.shape[1:-1], reached, strict=True))
    if pad == "same":
        assert not any(back.outpad)  # it grows by the stride, and needs no more
    z = rng.normal(size=y.shape).astype("f")
    there, here = np.vdot(np.float64(conv(x)), z), np.vdot(x, np.float64(back(z)))
    assert there == pytest.approx(here, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_same(kernel: int, stride: int) -> None:
    adjoint((kernel,), stride, "same", 1, 1, False)


@pytest.mark.slow
@pytest.mark.parametrize("setting", settings(), ids=str)
def test_every_pair(setting: Any) -> None:
    for flip in (False, True):
        adjoint(*setting, flip)
