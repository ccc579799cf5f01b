"""Checkpoints with right checksums and wrong content: each refused in a sentence, or loaded whole.

    python benchmarks/manifests.py [--edits 5000] [--seed 0]

A checkpoint with something of everything is edited at one random place of its manifest: an entry
goes, changes its type, its name, its value, comes twice, or something else of the file stands
there; checksums and table are made right again. Then it is loaded twice, into objects and alone.
Counted are:

    refused   with one sentence that names the file; nothing was changed
    differs   from the objects, as any other checkpoint of another run would; nothing was changed
    same      loaded, and the objects say what they said
    another   loaded, and the objects say what the edited file says
    odd       loaded, and the objects say something else
    raw       another error
    partly    something was changed by a load that was refused
"""

from __future__ import annotations

import argparse
import collections
import copy
import hashlib
import json
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fluxax as fx
from fluxax._checkpoint._file import table
from fluxax._checkpoint._save import _noted

WHOLE = ("refused", "differs", "same", "another")


class Settings:
    """What is saved and loaded into."""

    def __init__(self, seed: int):
        fx.seed(seed)
        layers = fx.Dense(2, 3, fx.relu), fx.BatchNorm(3), fx.Dropout(0.5), fx.Dense(3, 1)
        self.model = fx.Chain(*layers)
        rule = fx.OptimiserChain(fx.WeightDecay(0.1), fx.Adam(0.5 / (seed + 1), (0.8, 0.9)))
        self.opt_state = fx.setup(rule, self.model)
        fx.freeze(self.opt_state.layers[3])
        self.loader = fx.DataLoader(np.arange(10), batchsize=3, shuffle=True)
        for _ in zip(range(seed + 1), self.loader, strict=False):
            pass
        self.rng, self.py = np.random.default_rng(seed), random.Random(seed)
        self.log = [seed, 1.5, float("inf"), {"a": (1, b"x", None), 2: {3, 4}}, 1 + 2j, np.int8(3)]
        self.arrays = {
            "key": jax.random.key(seed),
            "half": jnp.ones(3, jnp.bfloat16) * seed,
            "complex": jnp.ones(2, jnp.complex64),
            "weak": jnp.asarray(2.0),
            "numpy": np.arange(6.0).reshape(2, 3),
            "text": np.array(["a", "bc"]),
            "days": np.array(["2020-01-01"], "M8[D]"),
        }

    def things(self) -> dict[str, Any]:
        return dict(vars(self))


def manifest_of(things: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint of things would say, and the arrays that would stand in it."""
    notes, arrays = _noted(things)
    infos = {
        name: {**array.info, "sha256": hashlib.sha256(array.data).hexdigest()}
        for name, array in arrays.items()
    }
    return {"version": 1, **json.loads(json.dumps(notes)), "arrays": infos}, arrays


def said(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of things and random numbers, however leaves and rules are numbered."""
    arrays, leaves = manifest["arrays"], manifest["leaves"]

    def full(note: Any) -> Any:
        if isinstance(note, list):
            return [full(n) for n in note]
        if type(note) is int and abs(note) > 2**53:  # rules make floats of them
            return float(note)
        if not isinstance(note, dict) or "other" in note:
            return note
        if set(note) == {"array"}:
            return {"of": "jax", "weak": False, **arrays[note["array"]]}
        if set(note) == {"leaf"}:
            leaf = leaves[note["leaf"]]
            return {
                **leaf,
                "rule": full(manifest["rules"][leaf["rule"]]),
                "state": full(leaf["state"]),
            }
        if set(note) == {"set"}:
            return {"set": sorted(note["set"], key=text_of)}
        if "parts" in note:  # a Module that lacks a setting keeps its own
            note = {**note, "parts": {k: v for k, v in note["parts"].items() if v is not None}}
        return {k: full(v) for k, v in note.items() if (k, v) != ("frozen", False)}

    return {"things": full(manifest["things"]), "random": manifest["random"]}


def text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# --- editing --------------------------------------------------------------------------------

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 1.5, -0.5, 2**31, 2**40, 10**30, "", "x", "float32"),
    *([], [1], [[]], {}, {"x": 1}, {"array": "x"}, {"leaf": 0}, {"leaf": 99}, {"tuple": []}),
    *({"float": "nan"}, {"float": "x"}, {"complex": [1]}, {"bytes": "="}, {"set": [[]]}, "jax"),
    *({"scalar": ["O", ""]}, {"scalar": ["int8", "AA=="]}, {"dict": [[1, 2], [1, 3]]}, "numpy"),
    *([1 << 20, 1 << 20], [-1], "float33", "O", "<U9999999999", "void32", "<f16", "int4", "a\0b"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value, but its root."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, part in pairs:
        found.append((*path, key))
        if isinstance(part, (dict, list)):
            found += places(part, (*path, key))
    return found


def edited(manifest: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], str]:
    """A manifest with one thing changed, and what that was."""
    new = copy.deepcopy(manifest)
    spots = places(new)
    path = chance.choice(spots)
    if chance.random() < 0.5:  # most places are in arrays and random states
        top = chance.choice(list(new))
        path = chance.choice([spot for spot in spots if spot[0] == top])
    inside: Any = new
    for key in path[:-1]:
        inside = inside[key]
    key, how = path[-1], chance.choice(["gone", "value", "value", "name", "twice", "other", "near"])
    if how == "gone":
        del inside[key]
    elif how == "name" and isinstance(inside, dict):
        pairs = [
            (k if k != key else chance.choice(["x", "array", k + "x"]), inside[k]) for k in inside
        ]
        inside.clear()
        inside.update(pairs)
    elif how == "twice" and isinstance(inside, list):
        inside.insert(key, copy.deepcopy(inside[key]))
    elif how == "near":
        inside[key] = near(inside[key], chance)
    else:
        value = chance.choice(VALUES)
        if how == "other":
            value = new
            for step in chance.choice(spots):
                value = value[step]
        inside[key] = copy.deepcopy(value)
    return new, f"{how} {'/'.join(map(str, path))}"


def near(value: Any, chance: random.Random) -> Any:
    """Something that looks like a value."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return chance.choice([-value, value + 1, value * 1.0, str(value), [value]])
    if isinstance(value, str):
        return chance.choice([value[1:], value + "x", value.upper(), [value], {"what": value}])
    if isinstance(value, list):
        return chance.choice([value[::-1], [value], {"tuple": value}, {"set": value}, value[1:]])
    return chance.choice([[value], {"tuple": [value]}, list(value.items()), list(value)])


DEEP = {
    "lists": lambda: "[" * 10_000 + "]" * 10_000,
    "dicts": lambda: '{"tuple":[' * 10_000 + "]}" * 10_000,
    "some": lambda: "[" * 400 + "]" * 400,
}


def deep(manifest: dict[str, Any], what: str) -> str:
    """The text of a manifest whose log is nested very deeply."""
    new = {**manifest, "things": {**manifest["things"], "log": "@"}}
    return json.dumps(new).replace('"@"', DEEP[what]())


def packed(text: str, arrays: dict[str, Any], before: dict[str, Any]) -> bytes:
    """A file with right checksums; the table is that of the manifest, if it can be made."""
    try:
        rows = table(json.loads(text)["arrays"])
        json.dumps(rows)
    except Exception:  # whatever is wrong with it; the manifest is looked at first
        rows = table(before["arrays"])
    hashed = hashlib.sha256(text.encode()).hexdigest()
    header = json.dumps({"__metadata__": {"fluxax": text, "sha256": hashed}, **rows}).encode()
    header += b" " * (-len(header) % 8)
    data = b"".join(array.data.tobytes() for array in arrays.values())
    return len(header).to_bytes(8, "little") + header + data


# --- loading --------------------------------------------------------------------------------


class Trial:
    """Loads edited files into objects, which stay as long as nothing is loaded."""

    def __init__(self, folder: Path):
        self.path = folder / "run.safetensors"
        saved = Settings(1)
        self.manifest, self.arrays = manifest_of(saved.things())
        self.manifest["value"] = 0.5
        self.renew()

    def renew(self) -> None:
        self.targets = Settings(0)
        self.before = text_of(said(manifest_of(self.targets.things())[0]))

    def run(self, text: str) -> tuple[str, str]:
        """What became of a manifest with this text, and what was said."""
        self.path.write_bytes(packed(text, self.arrays, self.manifest))
        alone = self.alone()
        into = self.into(text)
        worst = ["raw", "partly", "odd"]
        return next((found for found in (into, alone) if found[0] in worst), into)

    def alone(self) -> tuple[str, str]:
        try:
            fx.load(self.path)
        except Exception as error:
            return self.judged(error)
        return "same", ""

    def into(self, text: str) -> tuple[str, str]:
        try:
            out = fx.load(self.path, **self.targets.things())
        except Exception as error:
            verdict = self.judged(error)
            if text_of(said(manifest_of(self.targets.things())[0])) != self.before:
                self.renew()
                return "partly", verdict[1]
            return self.as_far_as_it_fits() if verdict[0] == "differs" else verdict
        found = said(manifest_of(out)[0])
        self.renew()
        if found == said(self.manifest):
            return "same", ""
        asked = said(json.loads(text))
        return ("another" if found == asked else "odd"), f"{difference(asked, found)}"

    def as_far_as_it_fits(self) -> tuple[str, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fx.load(self.path, strict=False, **self.targets.things())
        except Exception as error:
            return self.judged(error)
        finally:
            self.renew()
        return "differs", ""

    def judged(self, error: Exception) -> tuple[str, str]:
        said_ = str(error)
        if not isinstance(error, ValueError) or not said_.startswith("load expects "):
            return "raw", f"{type(error).__name__}: {said_[:200]}"
        if said_.startswith(
            ("load expects things nested like", "load expects a position that fits")
        ):
            return "differs", said_
        named = str(self.path) in said_ and "\n" not in said_
        return ("refused" if named else "raw"), said_


def difference(a: Any, b: Any, where: str = "") -> str:
    """The first place at which two JSON values differ."""
    if type(a) is type(b) and isinstance(a, dict) and a.keys() == b.keys():
        return next(filter(None, (difference(a[k], b[k], f"{where}/{k}") for k in a)), "")
    if type(a) is type(b) and isinstance(a, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next(filter(None, (difference(x, y, f"{where}/{i}") for i, (x, y) in pairs)), "")
    return "" if (type(a), a) == (type(b), b) else f"{where}: {str(a)[:80]} became {str(b)[:80]}"


def edits(n: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Counts of what became of so many edits, and what was wrong."""
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        trial, chance = Trial(Path(folder)), random.Random(seed)
        texts = [(deep(trial.manifest, what), f"deep {what}") for what in DEEP]
        for i in range(n):
            text, what = texts[i] if i < len(texts) else ("", "")
            if not text:
                new, what = edited(trial.manifest, chance)
                text = json.dumps(new)
            found, message = trial.run(text)
            counts[found] += 1
            if found not in WHOLE:
                wrong.append(f"{found}: {what}: {message}")
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, wrong = edits(given.edits, given.seed)
    print("\n".join(wrong[:40]))
    names = (*WHOLE, "odd", "raw", "partly")
    print(f"{given.edits} edits: {', '.join(f'{counts[name]} {name}' for name in names)}")


if __name__ == "__main__":
    main()
