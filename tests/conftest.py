"""What every test can rely on: one seed, and Hypothesis without a clock or a memory."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import settings

import fluxax as fx

#: Scripts that print golden numbers; they need the libraries that they take them from.
collect_ignore_glob = ["golden/make_*.py"]

# A slow machine is no failure, and the same commit gives the same verdict every time.
settings.register_profile("fluxax", deadline=None, derandomize=True, database=None)
settings.load_profile("fluxax")


def pytest_report_header() -> str:
    """What the tests ran on; pytest itself names the Python."""
    return ", ".join(f"{name} {version(name)}" for name in ("JAX", "NumPy", "Optax", "Equinox"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers, in whatever order they run."""
    fx.seed(0)
