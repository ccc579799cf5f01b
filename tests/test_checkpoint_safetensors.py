"""A checkpoint is what the safetensors package writes and reads, though fluxax does without it."""

from __future__ import annotations

import json

import jax.numpy as jnp
import ml_dtypes  # noqa: F401  NumPy knows bfloat16 and the 8-bit floats by it
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

import fluxax as fx
from tests.keeping import net

#: The dtypes that the package reads into NumPy.
READ = ["bool", "float16", "float32", "float64", "bfloat16"]
READ += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def header(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def test_other_programs_can_read_the_file(path):
    model = net()
    things = {name: np.arange(6).reshape(3, 2).astype(name) for name in READ}
    others = {"scalar": jnp.ones(()), "none": np.ones((0, 3)), "complex": np.array([2 - 3j])}
    fx.save(path, model=model, step=3, **things, **others)
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert set(file.metadata()) == {"fluxax", "sha256"}
    assert (found["model.layers[0].weight"] == np.asarray(model.layers[0].weight)).all()
    for name, array in things.items():
        assert found[name].dtype == array.dtype
        assert found[name].tolist() == array.tolist()
    assert found["scalar"].shape == ()
    assert found["none"].shape == (0, 3)
    assert found["complex"].tolist() == [[2, -3]]


@pytest.mark.parametrize("name", [*READ, "float8_e4m3fn", "float8_e5m2"])
def test_an_array_is_described_as_safetensors_does(name, path):
    array = np.ones((2, 3), np.dtype(name))
    fx.save(path, array=array)
    assert header(path.read_bytes())["array"] == header(save({"array": array}))["array"]
    assert path.read_bytes().endswith(array.tobytes())


def test_other_peoples_safetensors_are_told_apart(path):
    save_file({"a": np.ones(3)}, path)
    with pytest.raises(ValueError, match="a safetensors file without a manifest"):
        fx.load(path)
