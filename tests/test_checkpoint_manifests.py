"""Right checksums, wrong content: each is refused in a sentence with file and place."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fluxax as fx
from benchmarks.manifests import Settings, deep, manifest_of, packed

STATE = ["random", "state", "dict", 1, 1, "dict", 0, 1]


def put(*path, to):
    def edit(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return edit


def gone(*path):
    def edit(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return edit


WEIGHT = "model.layers[0].weight"

#: How a manifest is changed, and how the sentence goes on that refuses it.
EDITS = {
    "no things": (gone("things"), "a dict with 'things', got a dict of 7 at the manifest"),
    "things of another type": (put("things", to=[]), r"a dict, got a list of 0 at .*\['things'\]"),
    "no leaves": (gone("leaves"), "a dict with 'leaves'"),
    "no version": (gone("version"), "a whole number, got None at version"),
    "version as text": (put("version", to="1"), "a whole number, got '1' at version"),
    "version as a float": (put("version", to=1.0), "a whole number, got 1.0 at version"),
    "version true": (put("version", to=True), "a whole number, got True at version"),
    "steps of -1": (
        put("leaves", 0, "steps", to=-1),
        r"a whole number from 0 to 2147483647, got -1 at leaves\[0\]\['steps'\]",
    ),
    "steps true": (put("leaves", 0, "steps", to=True), r"a whole number, got True at leaves\[0\]"),
    "many steps": (put("leaves", 0, "steps", to=2**40), "a whole number from 0 to 2147483647"),
    "no frozen": (gone("leaves", 1, "frozen"), r"a dict with 'frozen', .* at leaves\[1\]"),
    "frozen as text": (put("leaves", 1, "frozen", to="no"), "true or false, got 'no'"),
    "a rule that is not there": (put("leaves", 0, "rule", to=99), "got 99 at leaves"),
    "a state that is no array": (
        put("leaves", 0, "state", 1, to={"array": "x"}),
        "the name of an array in the file, got 'x'",
    ),
    "a dtype that is none": (
        put("arrays", WEIGHT, "dtype", to="float33"),
        "a dtype, got 'float33'",
    ),
    "a dtype of objects": (put("arrays", WEIGHT, "dtype", to="O"), "a dtype, got 'O'"),
    "a dtype of NumPy's for JAX": (
        put("arrays", WEIGHT, "dtype", to="<U1"),
        "a dtype of JAX's, got '<U1' at arrays",
    ),
    "1 TiB": (
        put("arrays", WEIGHT, "shape", to=[1 << 20, 1 << 18]),
        r"it ends too early: \d+ bytes of arrays, which should have \d{13}",
    ),
    "2⁶⁶ bytes": (
        put("arrays", WEIGHT, "shape", to=[1 << 40, 1 << 24]),
        "a shape that an array can",
    ),
    "a negative shape": (put("arrays", WEIGHT, "shape", to=[-2, -3]), "got -2 at arrays"),
    "no checksum": (gone("arrays", WEIGHT, "sha256"), "a dict with 'sha256'"),
    "an array of nobody": (
        put("arrays", WEIGHT, "of", to="torch"),
        "'jax' or 'numpy', got 'torch'",
    ),
    "keys of no kind": (put("arrays", "arrays['key']", "key", to="x"), "random keys of JAX's"),
    "a note of no sort": (put("things", "log", to={"x": 1}), "a note of a value, got .* at log"),
    "two tags": (put("things", "log", to={"tuple": [], "x": 1}), "a note of a value"),
    "bytes that are none": (put("things", "log", 0, to={"bytes": "="}), r"bytes.* at log\[0\]"),
    "keys that are lists": (put("things", "log", to={"dict": [[[], 1]]}), "keys of a dict"),
    "a key twice": (put("things", "log", to={"dict": [[1, 2], [1, 3]]}), "keys of a dict"),
    "a set of lists": (put("things", "log", to={"set": [[]]}), r"a value \(set\)"),
    "an object in a scalar": (
        put("things", "log", to={"scalar": ["O", ""]}),
        r"a value \(scalar\)",
    ),
    "a special name": (
        put("things", "model", "parts", "__class__", to=1),
        "names of attributes, got '__class__' at model",
    ),
    "a leaf that is not there": (
        put("things", "opt_state", to={"leaf": -1}),
        "got -1 at opt_state",
    ),
    "random numbers": (put(*STATE, to=["x", 1]), "a state of NumPy's PCG64"),
    "half a random state": (gone("random", "state"), "a dict with 'state'"),
    "a random stream that began anew": (
        put("random", "entropy", to=None),
        r"what a random stream began with, got None at random\['entropy'\]",
    ),
    "loaders": (put("random", "loaders", to="3"), "a whole number, got '3' at random"),
    "a generator": (put("things", "rng", "state", to=3), "a state of Generator, got 3 at rng"),
    "a value that is none": (put("value", to="x"), "a number, got 'x' at value"),
}


@pytest.fixture(scope="module")
def saved():
    manifest, arrays = manifest_of(Settings(1).things())
    return {**manifest, "value": 0.5}, arrays


def refused(path, text, saved, said):
    """Whether a file with this manifest is refused by both, and nothing is filled."""
    path.write_bytes(packed(text, saved[1], saved[0]))
    targets = Settings(0)
    before = manifest_of(targets.things())[0]
    for things in ({}, targets.things()):
        with pytest.raises(ValueError, match=said) as error:
            fx.load(path, **things)
        assert str(error.value).startswith("load expects ")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert manifest_of(targets.things())[0] == before


@pytest.mark.parametrize("case", EDITS)
def test_content_that_makes_no_sense(case, saved, tmp_path):
    edit, said = EDITS[case]
    manifest = copy.deepcopy(saved[0])
    edit(manifest)
    refused(tmp_path / "a", json.dumps(manifest), saved, f"load expects .*{said}")


@pytest.mark.parametrize("what", ["lists", "dicts"])
def test_nested_too_deeply(what, saved, tmp_path):
    refused(tmp_path / "a", deep(saved[0], what), saved, "nested too deeply")


@pytest.mark.parametrize("text", ["", "[", "3", "[]", "null", '{"version": 1' + "0" * 5000 + "}"])
def test_a_manifest_that_is_no_dict(text, saved, tmp_path):
    refused(tmp_path / "a", text, saved, "load expects ")


def test_a_newer_format_is_said_to_be_one(saved, tmp_path):
    text = json.dumps({"version": 2, "written": {"fluxax": "9.9"}})
    refused(tmp_path / "a", text, saved, r"format 1, got format 2 .* written by fluxax 9\.9")


def test_a_folder_goes_back_to_one_that_makes_sense(saved, tmp_path):
    kept = fx.Checkpoints(tmp_path, best="min")
    kept.save(1, value=0.5, x=1)
    kept.path(2).write_bytes(packed(json.dumps({**saved[0], "value": [1]}), saved[1], saved[0]))
    assert kept.best_step() == 1
    with pytest.warns(UserWarning, match=r"a number, got .* at value.* takes the one before"):
        assert kept.load()["x"] == 1


def test_a_field_that_a_rule_lacks_in_the_file(tmp_path):
    """A newer version's field may have its default; any other value would be nobody's."""
    model = fx.Dense(1, 1, bias=False)
    manifest, arrays = manifest_of({"s": fx.setup(fx.Adam(0.5), model)})
    for name in ("eta", "epsilon"):
        del manifest["rules"][0]["parts"][name]
    path = tmp_path / "a"
    path.write_bytes(packed(json.dumps(manifest), arrays, manifest))
    fx.load(path, s=fx.setup(fx.Adam(), model))
    with pytest.raises(
        ValueError, match=r"s.weight.rule.eta: nothing in the checkpoint, 0.25 here"
    ):
        fx.load(path, s=fx.setup(fx.Adam(0.25), model))


def test_a_position_that_is_refused_leaves_the_seed(tmp_path):
    """A loader that follows `fx.seed` does so after a load that failed."""
    path = tmp_path / "a"
    fx.save(path, one=fx.DataLoader(np.arange(9)), two=fx.DataLoader(np.arange(9), shuffle=True))
    fx.seed(0)
    one, two = fx.DataLoader(np.arange(9), shuffle=True), fx.DataLoader(np.arange(5))
    expected = one.follows
    with pytest.raises(ValueError, match="load expects a position that fits, got one that"):
        fx.load(path, two=one, one=two)
    assert one.follows == expected


def test_a_name_of_the_formats_own(tmp_path):
    with pytest.raises(ValueError, match="save expects names of things, got '__metadata__'"):
        fx.save(tmp_path / "a", **{"__metadata__": jax.numpy.ones(2)})


@pytest.mark.slow
def test_random_edits():
    """A short run of the harness; `python benchmarks/manifests.py` makes 5,000 edits."""
    command = [sys.executable, "benchmarks/manifests.py", "--edits", "150", "--seed", "7"]
    root = Path(__file__).parent.parent
    out = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout
    assert re.search(r"150 edits: .* 0 odd, 0 raw, 0 partly$", out.strip()), out
