"""The words that error messages are made of.

Every sentence of ours reads `{who} expects {what}, got {value} at {path}. {What to do.}`;
this room holds the parts that several rooms need.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line of the user's code that led here."""
    warnings.warn(message, category, stacklevel=_depth())


def _depth() -> int:
    """Where the user's line is on the stack, as `stacklevel` counts, for the function that asks."""
    level, frame = 0, sys._getframe(0)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    return level


def users_line() -> str:
    """The line of the user's code that led here, as `file.py:12`."""
    frame = sys._getframe(_depth() - 1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


P = ParamSpec("P")
T = TypeVar("T")


def hinted(who: str, known: str = "", **hints: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function refuse keywords that it lacks with a sentence; type checkers see it as it is.

    Args:
        who: whose name stands in the sentence.
        known: what it expects, if not all of its arguments are to be listed.
        hints: by keyword, what is said of it and what to write instead, for habits from elsewhere.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        names = [n for n in inspect.signature(function).parameters if n != "self"]
        expected = known or f"{', '.join(names[:-1])} and {names[-1]}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in kwargs:
                if name not in names:
                    what, _, advice = hints.get(name, expected).partition(". ")
                    raise TypeError(f"{who} expects {what}, got `{name}`. {advice}".rstrip())
            return function(*args, **kwargs)

        return call

    return wrap


class InputError(ValueError):
    """Input that a layer cannot take; the sentence says where in the model, as far as known.

    >>> print(InputError("Dense(10, 5) expects input of shape (…, 10), got f32[4,3]", ".layers[2]"))
    Dense(10, 5) expects input of shape (…, 10), got f32[4,3] at model.layers[2].
    """

    def __init__(self, sentence: str, place: str = "", advice: str = ""):
        super().__init__(sentence, place, advice)

    def __str__(self) -> str:
        sentence, place, advice = self.args
        at = f" at model{place}" if place else ""
        return f"{sentence}{at}." + (f" {advice}" if advice else "")


_LETTERS = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


def dtype_name(dtype: Any) -> str:
    """A dtype in the short spelling of XLA: `f32`, `i64`, `bool`.

    >>> import numpy as np
    >>> dtype_name(np.dtype("float32"))
    'f32'
    """
    name = getattr(dtype, "name", str(dtype))
    word = name.rstrip("0123456789")
    return _LETTERS.get(word, word) + name[len(word) :]


def short(value: Any) -> str:
    """A value in a few characters: arrays as `f32[3,1]`, never their contents.

    >>> import numpy as np
    >>> short(np.zeros((3, 1), "float32")), short("relu"), short([1, 2])
    ('f32[3,1]', "'relu'", 'a list of 2')
    """
    if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype"):
        return f"{dtype_name(value.dtype)}[{','.join(map(str, value.shape))}]"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    if isinstance(value, (list, tuple, dict, set)):
        kind = type(value).__name__
        return f"a {kind} of {len(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"{article(type(value).__name__)}"


def no_numbers(value: Any) -> bool:
    """Whether a value is clearly no array of numbers: nothing, text, an array of objects or words.

    >>> import numpy as np
    >>> no_numbers("a"), no_numbers(np.array(["a"])), no_numbers(np.ones(2)), no_numbers(3)
    (True, True, False, False)
    """
    if value is None or isinstance(value, (str, bytes, dict, set)):
        return True
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "OSUMm"


def check_numbers(who: str, **arguments: Any) -> None:
    """An error where an argument is no array of numbers, nor can become one.

    >>> check_numbers("mse", y_hat=np.ones(2), y=[1, 2])
    >>> check_numbers("mse", y_hat=np.ones(2), y="a")
    Traceback (most recent call last):
    TypeError: mse expects numbers as `y`, got 'a'.
    """
    for name, value in arguments.items():
        if no_array(value):
            raise TypeError(f"{who} expects numbers as `{name}`, got {short(value)}.")


def no_array(value: Any) -> bool:
    """Whether an array of numbers is not to be had from a value: text, objects, a ragged list."""
    if isinstance(value, (list, tuple)):
        return any(map(no_array, value)) or len(set(map(_shape, value))) > 1
    known = hasattr(value, "dtype") or isinstance(value, (int, float, complex))
    return no_numbers(value) or not (known or hasattr(value, "__array__"))


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return (len(value), *(_shape(value[0]) if value else ()))
    return tuple(getattr(value, "shape", ()))


def article(word: str) -> str:
    """The word with its indefinite article.

    >>> article("Adam"), article("Chain")
    ('an Adam', 'a Chain')
    """
    return ("an " if word[:1].lower() in "aeiou" else "a ") + word
