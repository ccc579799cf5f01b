"""Rules that look at the whole tree: every leaf asks, and all are answered together.

Leaves are traced one by one. A rule that needs the others calls `ask` in its `init` or `apply`;
what it says there carries on with the answer when all leaves that have such a rule have asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fluxax.optimisers._rule import Rule, rules_in


class Place(NamedTuple):
    """Where a leaf's array stood in the model that was given to `setup`."""

    number: int
    tree: Any  # nested like that model, with the number of a leaf at each


class Part(NamedTuple):
    """What one leaf brings to a meeting."""

    rule: Any
    state: Any
    x: Any
    dx: Any = None  # nothing at setup
    real: Any = None  # of small leaves in one array: which numbers are there
    place: Place | None = None


class WholeTree(Rule):
    """A rule whose step for one parameter depends on all of them."""

    def circle(self) -> Hashable:
        """Rules with equal circles meet."""
        return type(self)

    def begin(self, parts: list[Part]) -> Sequence[Any]:
        """The answers to what `init` asks, one for each part."""
        raise TypeError(f"{type(self).__name__} asks nothing at setup.")

    def meet(self, parts: list[Part]) -> Sequence[Any]:
        """The answers to what `apply` asks, one for each part."""
        raise TypeError(f"{type(self).__name__} asks nothing.")

    def rehearse(self, part: Part) -> Any:
        """An answer of the right shape, where only shapes are wanted."""
        return self.meet([part])[0]


class Speaker:
    """A leaf, or small leaves in one array, that may ask.

    Args:
        rule: its rule.
        run: runs the rule's `init` or `apply` and so comes to its questions.
        real, place: see `Part`.
    """

    def __init__(self, rule: Any, run: Callable[[], Any], real: Any = None, place: Any = None):
        self.run, self.real, self.place = run, real, place
        circles = [r.circle() for r in rules_in(rule) if isinstance(r, WholeTree)]
        self.keys = [(c, circles[:i].count(c)) for i, c in enumerate(circles)]
        self.answered: list[Any] = []  # keys
        self.answers: list[Any] = []
        self.at = 0
        self.result: Any = None

    def key(self, part: Part) -> Any:
        """What a question is about: the circle, and how many times it has met before."""
        circle = part.rule.circle()
        return circle, sum(c == circle for c, _ in self.answered)

    def awaits(self, key: Any) -> bool:
        """Whether a question is still to come."""
        return key in self.keys and key not in self.answered


class _Asked(Exception):
    def __init__(self, part: Part):
        super().__init__()
        self.part = part


class _Now(threading.local):
    speaker: Speaker | None = None
    rehearsing: bool = False


_now = _Now()


def ask(part: Part) -> Any:
    """The answer for a part; outside of a meeting it is alone."""
    speaker = _now.speaker
    if _now.rehearsing:
        return part.rule.rehearse(part)
    if speaker is None:
        return (part.rule.begin if part.dx is None else part.rule.meet)([part])[0]
    if speaker.at == len(speaker.answers):
        raise _Asked(part._replace(real=speaker.real, place=speaker.place))
    speaker.at += 1
    return speaker.answers[speaker.at - 1]


@contextmanager
def speaking(speaker: Speaker | None) -> Iterator[None]:
    """Who asks in this block."""
    before, _now.speaker = _now.speaker, speaker
    restart()
    try:
        yield
    finally:
        _now.speaker = before


@contextmanager
def rehearsing() -> Iterator[None]:
    """Answers in this block are of the right shape only."""
    before, _now.rehearsing = _now.rehearsing, True
    try:
        yield
    finally:
        _now.rehearsing = before


def restart() -> None:
    """Begin with the first answer again: a rule is tried once more."""
    if _now.speaker is not None:
        _now.speaker.at = 0


def converse(speakers: list[Speaker], *, until_answered: bool = False) -> None:
    """Run all speakers until none has a question left; their `result`s are then there.

    Args:
        speakers: who may ask.
        until_answered: not to run those again that know all they can ask.
    """
    running, asking = list(speakers), {}
    while running:
        for speaker in running:
            if id(speaker) not in asking and not (until_answered and _knows_all(speaker)):
                asking.update(_question(speaker))
        running = [s for s in running if id(s) in asking]
        if running:
            _answer(running, asking)


def _knows_all(speaker: Speaker) -> bool:
    return len(speaker.answers) == len(speaker.keys)


def _question(speaker: Speaker) -> dict[int, Part]:
    try:
        with speaking(speaker):
            speaker.result = speaker.run()
    except _Asked as asked:
        return {id(speaker): asked.part}
    return {}


def _answer(running: list[Speaker], asking: dict[int, Part]) -> None:
    """Answer one circle, of which everybody has come."""
    by_key: dict[Any, list[Speaker]] = {}
    for speaker in running:
        by_key.setdefault(speaker.key(asking[id(speaker)]), []).append(speaker)
    whole = [
        key for key, there in by_key.items() if sum(s.awaits(key) for s in running) == len(there)
    ]
    if not whole:
        names = " and ".join(sorted({type(p.rule).__name__ for p in asking.values()}))
        raise ValueError(
            f"update expects rules that look at the whole tree ({names}) to stand in one order in "
            "all chains, got two orders. Write them in the same order."
        )
    key, there = whole[0], by_key[whole[0]]
    parts = [asking.pop(id(speaker)) for speaker in there]
    meet = parts[0].rule.begin if parts[0].dx is None else parts[0].rule.meet
    for speaker, answer in zip(there, meet(parts), strict=True):
        speaker.answers.append(answer)
        speaker.answered.append(key)
