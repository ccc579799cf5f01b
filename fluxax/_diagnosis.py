"""Where a step went bad whose loss or gradient is not finite, in words.

Asked only when the guard has tripped. It looks at the parameters, runs the step once more,
uncompiled, layer by layer, and looks at the batch; the first of these that is to blame is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._objective import first_of
from fluxax._errors import article, short
from fluxax._implicit._params import Live, Params
from fluxax._plans import frozen_nodes
from fluxax._replay import Call, Replay, is_finite
from fluxax.optimisers._match import match_model
from fluxax.optimisers._rule import rules_in

#: The stream of a layer is further on after a step that was held back, so it draws others in the
#: replay; where those do no harm, more are tried.
_RUNS = 4


class Finding(NamedTuple):
    """Where it went bad, what there is to say about it, and what to do."""

    path: str | None = None
    text: str = ""
    advice: str = "Lower the learning rate, clip the gradient, or look at that item."


class Held(NamedTuple):
    """A step that was held back.

    Attributes:
        loss, model, opt_state: as for `train`.
        args: what the loss got beside the model; `None` if nobody knows.
        finite: whether the loss was, so that only a gradient went bad.
        compiled: whether the loss was compiled. One that was not has side effects, which nobody
            wants twice: it is not run again.
        root: what it drew random numbers of ours from.
    """

    loss: Any
    model: Any
    opt_state: Any
    args: tuple[Any, ...] | None
    finite: bool
    compiled: bool
    root: Any


class Slot(NamedTuple):
    """A trained array with its path and its leaf in the state tree."""

    path: str
    leaf: Any
    array: Any


def diagnosis(held_back: Callable[[], Held]) -> Finding:
    """Where a step went bad. It changes nothing and never fails: at worst it finds nothing."""
    found = Finding()
    try:
        held = held_back()
        slots = _slots(held)
        found = _found(held, slots)
        text = " ".join(filter(None, (found.text, _rate(slots, found.path))))
        return found._replace(text=text)
    except Exception:  # the error that says that training stopped must come out
        return found


def _found(held: Held, slots: list[Slot]) -> Finding:
    parameter = _bad_parameter(held, slots, sure=True)
    if parameter is not None:
        return parameter
    replayed = _replayed(held, slots)
    if replayed.path not in (None, "loss"):
        return replayed
    suspects = (_bad_input(held), _bad_parameter(held, slots, sure=False))
    return next((s for s in suspects if s is not None and not held.finite), replayed)


def _replayed(held: Held, slots: list[Slot]) -> Finding:
    if not held.compiled or held.args is None:
        return Finding()
    frozen = frozenset(path for path, _ in frozen_nodes(held.opt_state, held.model))
    try:
        replay = Replay(held.loss, held.model, held.args, frozen, held.root)
        return _backward(replay, slots) if held.finite else _forward(held, replay)
    except Exception:  # such a loss does not run uncompiled; what else is known may be enough
        return Finding()


# --- what can be seen without running anything --------------------------------------------


def _slots(held: Held) -> list[Slot]:
    """The trained arrays of the model, tied ones once."""
    if isinstance(held.model, Live):
        live = Params.at(held.model.order).live()
        found = list(map(Slot, map(str, live.order), held.opt_state, live))
    else:
        matched = match_model("train", held.opt_state, held.model)
        found = [Slot(_tree.path_string(path), leaf, array) for path, leaf, array in matched]
    return list({id(slot.array): slot for slot in reversed(found)}.values())[::-1]


def _bad_parameter(held: Held, slots: list[Slot], *, sure: bool) -> Finding | None:
    """The first array in the model that is not finite.

    If it is to be `sure`, infinities in what is not trained do not count: a mask may have them.
    """
    trained = {id(slot.array) for slot in slots}
    others = () if isinstance(held.model, Live) else _tree.arrays(held.model)
    named = [(s.path, s.array) for s in slots]
    named += [(_tree.path_string(p), a) for p, a in others if id(a) not in trained]
    for path, array in named:
        mild = sure and id(array) not in trained
        if not is_finite(jnp.where(jnp.isinf(array), 0, array) if mild else array):
            text = f"{path} itself is not finite: {_range(array)}."
            return Finding(path, text, "Put good numbers there before training goes on.")
    return None


def _bad_input(held: Held) -> Finding | None:
    for path, array in _inputs(held):
        if not is_finite(array):
            word = _word(held, path)
            text = f"{path}{word} is not finite: {_range(array)}."
            return Finding(path, text, "Mend that item, or leave it out.")
    return None


def _inputs(held: Held) -> Iterator[tuple[str, Any]]:
    """The arrays of the batch, named as in `loss(model, *batch)`."""
    args = held.args or ()
    batch = args[0] if len(args) == 1 else args
    for path, leaf in _tree.walk(batch):
        if _tree.is_array(leaf):
            yield _tree.path_string(path, "batch"), jnp.asarray(leaf)


def _word(held: Held, path: str) -> str:
    """What the loss calls a part of the batch."""
    try:
        names = list(inspect.signature(held.loss).parameters)
    except (TypeError, ValueError):
        return ""
    names = names if isinstance(held.model, Live) else names[1:]
    many = len(held.args or ()) > 1
    at = [f"batch[{i}]" if many else "batch" for i in range(len(names))]
    word = dict(zip(at, names, strict=True)).get(path)
    return f" (`{word}` of the loss)" if word and word != "batch" else ""


# --- once more, uncompiled ----------------------------------------------------------------


def _forward(held: Held, replay: Replay) -> Finding:
    for _ in range(_RUNS):
        out = replay.forward()
        for call in replay.calls:
            if all(map(is_finite, call.given)) and not all(map(is_finite, call.gave)):
                path, name = _names(replay, call)
                text = (
                    f"In the forward pass {name} was the first to give numbers that are not "
                    f"finite: {_ranges(call.gave)}. It was given {_ranges(call.given)}"
                )
                own = [f"its {k} is {_range(a)}" for k, a in _own(call.owner)]
                return Finding(path, ", ".join([text, *own]) + ".")
        loss = first_of(out)
        if not is_finite(jnp.asarray(loss)):
            return _of_loss(held, replay)
    return Finding(None, "Run once more, uncompiled, that step was finite.")


def _of_loss(held: Held, replay: Replay) -> Finding:
    """All that layers gave is finite, and the loss is not."""
    gave = [a for call in replay.calls[-1:] for a in call.gave]
    for path, array in _inputs(held):
        classes = gave[0].shape[-1] if gave and gave[0].ndim == array.ndim + 1 else None
        if classes and array.size and jnp.issubdtype(array.dtype, np.integer):
            wrong = [k for k in (int(array.min()), int(array.max())) if not 0 <= k < classes]
            if wrong:
                text = (
                    f"Every layer gave finite numbers. {path}{_word(held, path)} has the label "
                    f"{wrong[0]}, but the model gives {classes} classes, 0 to {classes - 1}."
                )
                return Finding(path, text, "Mend the labels of that item.")
    found = [f"the last one {_ranges(gave)}"] if gave else []
    found += [f"{path}{_word(held, path)} is {_range(array)}" for path, array in _inputs(held)]
    text = "Every layer gave finite numbers, so it was in the loss itself"
    return Finding("loss", f"{text}: {', '.join(found)}." if found else f"{text}.")


def _backward(replay: Replay, slots: list[Slot]) -> Finding:
    moving = [slot for slot in slots if not slot.leaf.frozen]
    grads = replay.gradients([slot.array for slot in moving])
    pairs = zip(moving, grads, strict=True)
    bad = [(slot, grad) for slot, grad in pairs if not is_finite(grad)]
    if not bad:
        return Finding(None, "Run once more, uncompiled, the gradient of that step was finite.")
    # backwards the last parameters come first; of one layer's, the first is named
    homes = {slot.path: _home(replay, slot.path) for slot, _ in bad}
    last = max(homes.values())
    slot, grad = next(pair for pair in bad if homes[pair[0].path] == last)
    text = (
        f"In the backward pass the gradient of {slot.path} was the first that is not finite: "
        f"{_range(grad)}; the parameter is {_range(slot.array)}. "
    )
    return Finding(slot.path, text + _origin(replay, set(homes.values())))


def _home(replay: Replay, path: str) -> int:
    """When the layer was called in which a parameter stands; -1 if it was not."""
    names = replay.names()
    found = -1, -1
    for i, call in enumerate(replay.calls):
        name = names.get(id(call.owner), "?")
        if path.startswith(name) and path[len(name) :][:1] in (".", "["):
            found = max(found, (len(name), i))
    return found[1]


def _origin(replay: Replay, homes: set[int]) -> str:
    """Where the gradient was finite before and not after, as far as layers tell."""
    for i, call in enumerate(replay.calls):
        spoilt = i in homes or not all(map(is_finite, call.passed))
        if spoilt and call.reached and all(map(is_finite, call.reached)):
            _, name = _names(replay, call)
            return (
                f"The gradient that reached {name} was still finite; in the forward pass it was "
                f"given {_ranges(call.given)} and gave {_ranges(call.gave)}."
            )
    if replay.calls and replay.calls[-1].reached:
        return "It was not finite already where the loss handed it to the model."
    return ""


def _names(replay: Replay, call: Call) -> tuple[str | None, str]:
    """The path of a layer, and how a sentence calls it."""
    path, shown = replay.names().get(id(call.owner)), repr(call.owner)
    if "\n" in shown or len(shown) > 60:
        shown = article(type(call.owner).__name__)
    return path, f"{path} ({shown})" if path else shown


def _own(layer: Any) -> list[tuple[str, Any]]:
    """The arrays right inside a layer, by name."""
    parts = [(_tree.key_name(key), part) for key, part in _tree.parts(layer)]
    return [(str(k), a) for k, a in parts if _tree.is_array(a) and _tree.is_inexact(a)]


# --- words --------------------------------------------------------------------------------


def _ranges(arrays: list[Any]) -> str:
    return " and ".join(map(_range, arrays)) or "no arrays"


def _range(array: Any) -> str:
    """An array's type and where its numbers lie.

    >>> _range(np.array([0.5, 2.0], "float32")), _range(np.array([np.nan, 2.0], "float32"))
    ('f32[2] from 0.5 to 2', 'f32[2] with 1 NaN among 2 numbers')
    """
    name = short(array)
    if (
        array.size == 0
        or array.dtype == np.bool_
        or jnp.issubdtype(array.dtype, jnp.complexfloating)
    ):
        return name
    x = np.asarray(array)
    x = x.astype(np.float64) if jnp.issubdtype(x.dtype, np.floating) else x
    if np.isfinite(x).all():
        return f"{name} from {x.min():.6g} to {x.max():.6g}"
    counts = (int(np.isnan(x).sum()), "NaN"), (int(np.isinf(x).sum()), "inf")
    many = " and ".join(f"{n} {what}" for n, what in counts if n)
    return f"{name} with {many} among {x.size} numbers"


def _rate(slots: list[Slot], path: str | None) -> str:
    """The learning rate where it went bad; of the first parameter if that is not in the model."""
    near = [slot for slot in slots if path and slot.path.startswith(path)] or slots
    for rule in rules_in(near[0].leaf.now) if near else ():
        eta = getattr(rule, "eta", None)
        if eta is not None:
            return f"The learning rate is {float(np.asarray(eta)):.6g}."
    return ""
