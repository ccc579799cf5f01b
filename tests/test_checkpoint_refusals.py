"""What does not fit, cannot be kept, or is not there: refused with its place, nothing changed."""

from __future__ import annotations

import os
import socket
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.keeping import Foreign, net, scrambled


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


# --- refusals --------------------------------------------------------------------------------

DIFFERENCES = {
    "shape": (
        lambda: fx.Dense(2, 3),
        lambda: fx.Dense(2, 4),
        r"m.weight: f32\[2,3\] in the checkpoint, f32\[2,4\] here",
    ),
    "dtype": (
        lambda: fx.Dense(2, 3),
        lambda: fx.f16(fx.Dense(2, 3)),
        r"m.bias: f32\[3\] in the checkpoint, f16\[3\] here",
    ),
    "bias": (
        lambda: fx.Dense(2, 3),
        lambda: fx.Dense(2, 3, bias=False),
        r"m.bias: f32\[3\] in the checkpoint, (None|False) here",
    ),
    "no bias": (
        lambda: fx.Dense(2, 3, bias=False),
        lambda: fx.Dense(2, 3),
        r"m.bias: (None|False) in the checkpoint, f32\[3\] here",
    ),
    "activation": (
        lambda: fx.Dense(2, 3, fx.relu),
        lambda: fx.Dense(2, 3, fx.tanh),
        r"m.activation: relu in the checkpoint, tanh here",
    ),
    "class": (
        lambda: fx.LayerNorm(3),
        lambda: fx.Dense(3, 3),
        r"m: a LayerNorm in the checkpoint, a Dense here",
    ),
    "fewer": (
        lambda: fx.Chain(fx.Dense(1, 1)),
        lambda: fx.Chain(fx.Dense(1, 1), fx.Dense(1, 1)),
        r"m.layers\[1\]: nothing in the checkpoint, a Dense here",
    ),
    "more": (
        lambda: fx.Chain(fx.Dense(1, 1), fx.Dropout(0.1)),
        lambda: fx.Chain(fx.Dense(1, 1)),
        r"m.layers\[1\]: a Dropout in the checkpoint, nothing here",
    ),
    "names": (
        lambda: fx.Chain(a=fx.Dense(1, 1), b=fx.Dense(1, 1)),
        lambda: fx.Chain(b=fx.Dense(1, 1), a=fx.Dense(1, 1)),
        r"m.layers: a list of a, b in the checkpoint, a list of b, a here",
    ),
    "key": (
        lambda: {"a": jnp.ones(1)},
        lambda: {"b": jnp.ones(1)},
        r"m\['a'\]: f32\[1\] in the checkpoint, nothing here",
    ),
    "kind": (
        lambda: {"a": jnp.ones(1)},
        lambda: [jnp.ones(1)],
        r"m: a dict of 1 in the checkpoint, a list of 1 here",
    ),
    "plain": (
        lambda: {"a": jnp.ones(1), "b": 3},
        lambda: {"a": jnp.ones(1), "b": jnp.ones(2)},
        r"m\['b'\]: 3 in the checkpoint, f32\[2\] here",
    ),
    "other thing": (lambda: 3, lambda: fx.Dense(1, 1), r"m: 3 in the checkpoint, a Dense here"),
    "a rule": (
        lambda: fx.setup(fx.Adam(), {"w": jnp.ones(1)}),
        lambda: {"w": jnp.ones(1)},
        r"m\['w'\]: a Leaf of Adam in the checkpoint, f32\[1\] here",
    ),
    "not trained": (
        lambda: fx.setup(fx.Adam(), [jnp.ones(1)]),
        lambda: fx.setup(fx.Adam(), [jnp.ones(2)]),
        r"m\[0\]: the state of an array of shape \(1,\) in the checkpoint, of shape \(2,\) here",
    ),
    "generator": (
        lambda: np.random.default_rng(0),
        lambda: np.random.Generator(np.random.SFC64(0)),
        r"m: a Generator of PCG64 in the checkpoint",
    ),
    "loader": (
        lambda: fx.DataLoader(np.arange(3)),
        lambda: fx.Dense(1, 1),
        r"m: a DataLoader in the checkpoint, a Dense here",
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_differences_are_refused_with_their_place(case, path):
    then, now, line = DIFFERENCES[case]
    fx.save(path, m=then())
    target = now()
    before = repr(target)
    with pytest.raises(ValueError, match=line) as error:
        fx.load(path, m=target)
    text = str(error.value)
    assert text.startswith("load expects things nested like those in the checkpoint, got ")
    assert text.endswith("Build them as they were, or pass strict=False to fill what fits.")
    assert repr(target) == before
    with pytest.warns(UserWarning, match=line) as warned:
        fx.load(path, strict=False, m=target)
    assert "load filled what fits. What did not:" in str(warned[0].message)
    assert warned[0].filename == __file__


def test_many_differences_are_counted(path):
    fx.save(path, m=[jnp.ones(i + 1) for i in range(20)])
    with pytest.raises(ValueError, match=r"got 20 differences:(.|\n)*and 8 more"):
        fx.load(path, m=[jnp.ones(50) for _ in range(20)])


def test_what_fits_is_filled_and_converted_without_strict(path):
    model = scrambled(net())
    fx.save(path, model=model)
    other = net()
    other.layers[3] = fx.Dense(3, 5)
    other.layers[0].weight = other.layers[0].weight.astype(np.float16)
    with pytest.warns(
        UserWarning, match=r"f16\[4,3\] here: converted\n(.|\n)*f32\[3,5\] here: left as it"
    ):
        fx.load(path, strict=False, model=other)
    assert (other.layers[0].weight == model.layers[0].weight.astype(np.float16)).all()
    assert (other.layers[1].mean == model.layers[1].mean).all()
    assert other.layers[3].weight.shape == (3, 5)


def test_a_state_that_is_left_since_rules_differ_is_said_to_be(path):
    def state(last):
        model = {"w": jnp.ones(1)}
        opt_state = fx.setup(fx.OptimiserChain(fx.Momentum(), last), model)
        fx.update(opt_state, model, {"w": jnp.ones(1)})
        return opt_state

    fx.save(path, o=state(fx.WeightDecay()))
    now = fx.setup(fx.OptimiserChain(fx.Momentum(), fx.SignDecay()), {"w": jnp.ones(1)})
    with pytest.warns(UserWarning, match=r"o\['w'\].state: that of other rules.*: left as it is"):
        fx.load(path, strict=False, o=now)
    assert not now["w"].state[0].any()


def test_a_name_that_is_not_there(path):
    fx.save(path, model=fx.Dense(1, 1), epoch=1)
    with pytest.raises(ValueError, match="opt: not in the checkpoint, which has model, epoch"):
        fx.load(path, opt={})


def test_a_loader_over_other_data_is_refused_by_itself(path):
    fx.save(path, loader=fx.DataLoader(np.arange(5)))
    with pytest.raises(ValueError, match="expects the position in 4 observations, got one in 5"):
        fx.load(path, loader=fx.DataLoader(np.arange(4)))


class Opaque:
    pass


def _looped():
    loop: list = []
    loop.append(loop)
    return loop


UNKEPT = {
    "function": (lambda: print, TypeError, r"got the function print at x"),
    "object": (lambda: Opaque(), TypeError, r"got an Opaque at x\. Save what you need of it"),
    "deep": (lambda: {"a": [Opaque()]}, TypeError, r"got an Opaque at x\['a'\]\[0\]"),
    "lambda in a config": (lambda: {"a": fx.relu}, TypeError, r"at x\['a'\]"),
    "objects": (
        lambda: np.array([Opaque()]),
        TypeError,
        r"arrays of numbers or text, got one of dtype object at x",
    ),
    "fields": (lambda: np.zeros(2, [("a", "f4")]), TypeError, r"got one of dtype .* at x"),
    "loop": (_looped, ValueError, r"contains itself|got a cycle"),
    "odd key": (lambda: {Opaque(): jnp.ones(1)}, TypeError, r"plain keys in a dict, got an Opaque"),
    "state": (
        lambda: type("L", (Foreign,), {"state_dict": lambda s: {"f": print}})(),
        TypeError,
        r"state_dict of a L to hold plain values",
    ),
}


@pytest.mark.parametrize("case", UNKEPT)
def test_what_cannot_be_kept_is_refused(case, path):
    make, kind, sentence = UNKEPT[case]
    fx.save(path, x=1)
    with pytest.raises(kind, match=sentence):
        fx.save(path, x=make())
    assert fx.load(path) == {"x": 1}


def test_traced_and_donated_arrays_are_refused(path):
    with pytest.raises(TypeError, match="expects concrete arrays, got a traced one at x"):
        jax.jit(lambda a: fx.save(path, x=a))(jnp.ones(2))
    gone = jnp.ones(2)
    gone.delete()
    with pytest.raises(
        ValueError, match=r"got one at x\['w'\] whose memory a JAX program has taken"
    ):
        fx.save(path, x={"w": gone})


def test_a_number_of_too_many_digits(path):
    with pytest.raises(ValueError, match="save expects whole numbers of at most 13000 bits"):
        fx.save(path, n=10**5000)
    fx.save(path, n=10**3900)
    assert fx.load(path)["n"] == 10**3900


def test_paths(tmp_path):
    with pytest.raises(TypeError, match=r"save expects a path first, got a Dense"):
        fx.save(fx.Dense(1, 1), model=1)
    with pytest.raises(ValueError, match="save expects something to keep"):
        fx.save(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="save expects a folder that is there"):
        fx.save(tmp_path / "no" / "a", x=1)
    with pytest.raises(IsADirectoryError, match="load expects the path of a file, got the folder"):
        fx.load(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"load expects a checkpoint, got .* which is not there"
    ):
        fx.load(tmp_path / "a")
    fx.save(str(tmp_path / "a"), x=1)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    fx.save(tmp_path / "link", x=2)
    assert (tmp_path / "link").is_symlink()
    assert fx.load(tmp_path / "a") == {"x": 2}


def pipe(place):
    os.mkfifo(place)


def socketed(place):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def loop(place):
    place.symlink_to(place)


def long_loop(place):
    place.symlink_to(place.with_name("other"))
    place.with_name("other").symlink_to(place)


#: What is no file: how it is made, and what is said of it.
NO_FILES = {
    "folder": (lambda place: place.mkdir(), IsADirectoryError, "the folder"),
    "pipe": (pipe, OSError, "the pipe"),
    "socket": (socketed, OSError, "the socket"),
    "device": (lambda place: place.symlink_to("/dev/null"), OSError, "the device"),
    "loop": (loop, OSError, "the link .* which leads to itself"),
    "long loop": (long_loop, OSError, "the link .* which leads to itself"),
    "link to a pipe": (
        lambda place: (pipe(place.with_name("p")), place.symlink_to(place.with_name("p"))),
        OSError,
        "the pipe",
    ),
    "link to no folder": (
        lambda place: place.symlink_to(place.with_name("no") / "a"),
        FileNotFoundError,
        "",
    ),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and devices in folders")
@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file_is_not_replaced(case, tmp_path):
    make, error, said = NO_FILES[case]
    place = tmp_path / "a"
    make(place)
    then = {p.name: p.lstat().st_mode for p in tmp_path.iterdir()}
    with pytest.raises(error, match=rf"^save expects .*got {said}.*\.$") as raised:
        fx.save(place, x=1)
    assert "Make room" not in str(raised.value)
    assert {p.name: p.lstat().st_mode for p in tmp_path.iterdir()} == then
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_whose_file_is_not_there_yet(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    fx.save(tmp_path / "link", x=1)
    assert (tmp_path / "link").is_symlink()
    assert fx.load(tmp_path / "a") == {"x": 1}


def test_a_folder_of_checkpoints_that_is_gone(tmp_path):
    kept = fx.Checkpoints(tmp_path / "runs")
    kept.folder.rmdir()
    with pytest.raises(FileNotFoundError, match=r"save expects a folder that is there.* Make "):
        kept.save(1, x=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"save expects a folder that is there"):
        fx.save(tmp_path / "file" / "a", x=1)
    with pytest.raises(ValueError, match="expects a path, got 'a\\\\x00', which no file can have"):
        fx.save("a\0", x=1)


# --- a folder of them ------------------------------------------------------------------------


def test_the_last_few_and_the_best(tmp_path):
    kept = fx.Checkpoints(tmp_path / "runs" / "a", keep=2, best="max")
    for step, value in enumerate([0.1, 0.9, float("nan"), 0.9, 0.5, 0.3]):
        kept.save(step, value=value, x=step)
    assert kept.steps() == [1, 4, 5]
    assert kept.best_step() == 1
    assert kept.load() == {"x": 5, "step": 5, "value": 0.3}
    assert kept.load(1)["x"] == 1
    assert fx.Checkpoints(tmp_path / "runs" / "a", best="min").best_step() == 5
    assert repr(kept).endswith("keep=2, best='max')")
    kept.path(5).write_bytes(kept.path(5).read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"(?s)damaged.*takes the one before"):
        assert kept.load()["x"] == 4
    with pytest.raises(ValueError, match="whole checkpoint"):
        kept.load(5)


def test_a_folder_says_what_it_expects(tmp_path):
    with pytest.raises(ValueError, match="keep of at least 1, got 0"):
        fx.Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match='best as "min", "max" or None'):
        fx.Checkpoints(tmp_path, best="loss")
    kept = fx.Checkpoints(tmp_path, best="min")
    with pytest.raises(ValueError, match="expects a value to find the best by"):
        kept.save(1, x=1)
    with pytest.raises(ValueError, match="a step of at least 0, got -1"):
        kept.save(-1, x=1, value=0.0)
    with pytest.raises(FileNotFoundError, match=r"expects a whole checkpoint in .* got none"):
        kept.load()
