"""The examples run as they stand, on little data."""

from __future__ import annotations

import gzip
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "mnist.py"


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", SCRIPT.with_stem(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mnist() -> ModuleType:
    return example("mnist")


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Little images whose class is the row of a bright stripe; four files, as MNIST has them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 320), ("t10k", 60)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28))
        images[np.arange(count), 4 + 2 * labels] = 255
        write_idx(tmp_path / f"{split}-images-idx3-ubyte{request.param}", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte{request.param}", labels)
    return tmp_path


both_forms = pytest.mark.parametrize("idx_folder", ["", ".gz"], indirect=True)
gzipped = pytest.mark.parametrize("idx_folder", [".gz"], indirect=True)


@both_forms
def test_idx_files_are_read(mnist: ModuleType, idx_folder: Path) -> None:
    train, test = mnist.idx_digits(idx_folder)
    assert train.images.shape == (320, 28, 28, 1)
    assert train.images.dtype == np.float32
    assert train.images.max() == 1
    assert test.labels.tolist() == [i % 10 for i in range(60)]


@gzipped
def test_missing_idx_file_is_named(mnist: ModuleType, idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SystemExit, match="has no file named t10k-labels-"):
        mnist.idx_digits(idx_folder)


def test_missing_fashion_names_the_package(
    mnist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "FASHION", tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="dataset-fashion-mnist"):
        mnist.load("fashion", np.random.default_rng(0))


def test_shifts_move_whole_images(mnist: ModuleType) -> None:
    image = np.zeros((1, 28, 28, 1), np.float32)
    image[0, 14, 14, 0] = 1
    moved = mnist.shifted(np.repeat(image, 400, 0), np.random.default_rng(0))
    assert moved.shape == (400, 28, 28, 1)
    n, rows, columns, _ = np.nonzero(moved)
    assert n.tolist() == list(range(400))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
        (14 + i, 14 + j) for i in range(-2, 3) for j in range(-2, 3)
    }


@gzipped
def test_both_loops_train_alike(mnist: ModuleType, idx_folder: Path) -> None:
    words = ["--data", str(idx_folder), "--epochs", "2", "--out", str(idx_folder / "out")]
    explicit = mnist.main([*words, "--loop", "explicit"])
    train = mnist.main([*words, "--loop", "train"])
    assert train[-1].loss < train[0].loss
    np.testing.assert_allclose([e.loss for e in explicit], [e.loss for e in train], rtol=1e-3)
    assert {path.name for path in (idx_folder / "out").iterdir()} == {"curves.png", "mistakes.png"}


@pytest.mark.slow
def test_the_script_runs_on_the_real_digits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), "--smoke", "--epochs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "200 images to train with, 50 held out" in done.stdout
    assert re.search(r"^ +1 +\d\.\d{4} +\d+\.\d\d% +\d+\.\d$", done.stdout, re.MULTILINE)
    assert (tmp_path / "out/mnist/mistakes.png").stat().st_size > 0


# --- the small ones -------------------------------------------------------------------------


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'example\("(\w+)"\)', Path(__file__).read_text("utf-8")))
    assert {path.stem for path in SCRIPT.parent.glob("*.py")} == tested


def test_the_line_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    slope, offset = example("line").main(epochs=10)
    assert (slope, offset) == (pytest.approx(4, abs=0.1), pytest.approx(2, abs=0.05))
    assert f"y = {slope:.2f} x" in capsys.readouterr().out
    assert len(SCRIPT.with_stem("line").read_text("utf-8").splitlines()) < 45


@pytest.mark.slow
def test_fine_tuning_helps_and_leaves_what_is_frozen() -> None:
    found = example("finetune").main(epochs=4)  # the script itself looks at the frozen weights
    before, head_alone, both = found.values()
    assert before < 0.75 < head_alone
    assert both > 0.75


@pytest.mark.slow
def test_equinox_and_optax_both_ways() -> None:
    ours, theirs = example("interop").main(steps=60)
    assert ours > 0.6
    assert theirs > 0.6


@pytest.mark.slow
def test_letters_are_learned_from_the_standard_library(capsys: pytest.CaptureFixture[str]) -> None:
    characters = example("characters")
    assert len(characters.text()) > 100_000
    x, y = characters.pieces(np.arange(10), 3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert (y == x + 1).all()
    first, last = characters.main(["--smoke"])
    assert last < first
    assert "\ndef " in capsys.readouterr().out
