"""Which style a call looks like, and what to write: the sentences for mixed-up styles."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._errors import article, short
from fluxax._implicit._grads import Grads
from fluxax._implicit._params import Live, Params

_EXPLICIT = "fx.gradient(lambda m: loss(m(x), y), model)"
_IMPLICIT = "fx.gradient(lambda: loss(model(x), y), fx.params(model))"


def check_gradient(f: Any, args: tuple[Any, ...]) -> None:
    """An error unless `gradient` is called in one style: `f()` with Params alone, or without."""
    if not callable(f):
        raise TypeError(
            f"gradient expects a function first, got {short(f)}. Write {_EXPLICIT}, or {_IMPLICIT}."
        )
    if not args:
        raise TypeError(
            "gradient expects something to differentiate by, got a function alone, which looks "
            f"like the implicit style without its Params. Write {_IMPLICIT}, or {_EXPLICIT}."
        )
    if any(isinstance(a, Params) for a in args):
        check_alone(args)
        names = _required(f)
        if names:
            raise TypeError(
                "gradient expects a function without arguments with Params, got one of "
                f"`{', '.join(names)}`, which looks like the explicit style. Write {_EXPLICIT}, or "
                f"{_IMPLICIT}."
            )
    elif _takes_nothing(f) and not isinstance(args[0], Live):
        raise TypeError(
            f"gradient expects a function of {len(args)} argument{'s' * (len(args) > 1)}, got one "
            f"without any, which looks like the implicit style. Write {_IMPLICIT}, or {_EXPLICIT}."
        )


def check_alone(args: tuple[Any, ...]) -> None:
    """An error if Params stand beside other arguments."""
    if len(args) > 1:
        raise TypeError(
            f"gradient expects Params alone, got {len(args)} arguments: Params belong to the "
            f"implicit style, others to the explicit one. Write {_IMPLICIT}, or {_EXPLICIT}."
        )


def check_update(opt: Any, model: Any, grad: Any) -> None:
    """An error if the arguments of `update` belong to two styles."""
    tree = isinstance(opt, _tree.Node)
    if isinstance(model, Params):
        if tree:
            raise TypeError(
                "update expects an optimisation rule with Params, got a state tree, which belongs "
                "to the explicit style. Write fx.update(opt, ps, gs) with opt = fx.Adam(0.1), or "
                "fx.update(opt_state, model, grads[0])."
            )
        if not isinstance(grad, Grads):
            raise TypeError(
                f"update expects Grads with Params, got {short(grad)}, which looks like the "
                "explicit style. Write gs = fx.gradient(lambda: loss(model(x), y), ps)."
            )
    elif isinstance(grad, Grads):
        raise TypeError(
            "update expects the gradient of the model, got Grads, which belong to the implicit "
            "style. Write fx.update(opt, ps, gs) with the Params that they are of, or "
            "fx.update(opt_state, model, grads[0])."
        )
    elif hasattr(opt, "apply") and not tree:
        name = opt.__name__ if isinstance(opt, type) else type(opt).__name__
        raise TypeError(
            f"update expects the state tree from `setup`, got {article(name)}. Write opt_state = "
            f"fx.setup(fx.{name}(...), model) once, then fx.update(opt_state, model, grads[0]); a "
            "rule itself belongs to the implicit style, fx.update(opt, ps, gs)."
        )


def check_train(who: str, opt: Any, model: Any) -> None:
    """An error if `train` gets a state tree with Params."""
    if isinstance(model, Params) and isinstance(opt, _tree.Node):
        raise TypeError(
            f"{who} expects an optimisation rule with Params, got a state tree, which belongs to "
            f"the explicit style. Write fx.{who}(loss, ps, data, fx.Adam(0.1)), or "
            f"fx.{who}(loss, model, data, opt_state)."
        )


def check_loss(who: str, loss: Any, args: tuple[Any, ...]) -> None:
    """An error if a loss takes the model although it is trained by Params, or the reverse."""
    if not isinstance(loss, types.FunctionType) or not args:
        return
    names, data = _required(loss), len(args) - 1
    got = f"got one of `{', '.join(names) or 'nothing'}` for {data} of data"
    if isinstance(args[0], Live):
        if len(names) > data:
            raise TypeError(
                f"{who} expects a loss of the data alone with Params, {got}, which looks like the "
                f"explicit style. Write lambda x, y: loss(model(x), y), or fx.{who}(loss, model, "
                "data, opt_state)."
            )
        if not _takes(loss, data):
            raise TypeError(f"{who} expects a loss of the data alone with Params, {got}.")
    elif loss.__code__.co_argcount == data and not loss.__code__.co_flags & _VARIADIC:
        raise TypeError(
            f"{who} expects a loss of the model and the data, {got}, which looks like the implicit "
            f"style. Write lambda m, x, y: loss(m(x), y), or fx.{who}(loss, fx.params(model), "
            "data, opt) with a rule."
        )
    elif not _takes(loss, len(args)):
        raise TypeError(
            f"{who} expects a loss of the model and the data, {got}. It is called as "
            "loss(model, *d) for a tuple d. For a single batch, data is [(x, y)]."
        )


def check_evaluated(f: Any, args: tuple[Any, ...]) -> None:
    """An error if a function that is evaluated does not take the model and the data of an item."""
    if isinstance(args[0], Params):
        raise TypeError(
            "evaluate expects a model, got Params, which belong to the implicit style. Pass the "
            "model: fx.evaluate(lambda m, x, y: loss(m(x), y), model, data)."
        )
    if isinstance(f, types.FunctionType) and not _takes(f, len(args)):
        raise TypeError(
            "evaluate expects a function of the model and the data, got one of "
            f"`{', '.join(_required(f)) or 'nothing'}` for {len(args) - 1} of data. "
            "It is called as f(model, *d) for a tuple d. For a single batch, data is [(x, y)]."
        )


def check_held(arrays: list[Any], alone: frozenset[int]) -> None:
    """An error if a loss names JAX arrays in variables, where no new array can be put.

    Args:
        arrays: the parameters.
        alone: which of the distinct ones among them.
    """
    distinct = list({id(a): a for a in arrays}.values()) if alone else []
    fixed = [distinct[i] for i in alone if type(distinct[i]) is not np.ndarray]
    if fixed:
        raise TypeError(
            "update expects parameters where it can put new arrays, got a JAX array "
            f"{short(fixed[0])} that the loss names itself, so that it would go on with the old "
            "one. Let the loss read it from a Module, a dict or a list that fx.params was given, "
            "or make it a NumPy array."
        )


def check_setup(model: Any) -> None:
    """An error if `setup` gets Params."""
    if isinstance(model, Params):
        raise TypeError(
            "setup expects a model, got Params, which belong to the implicit style. There a rule "
            "remembers its state itself: fx.update(opt, ps, gs). Or pass the model."
        )


def _required(f: Any) -> tuple[str, ...]:
    """The names of the arguments that a plain function must be given."""
    if not isinstance(f, types.FunctionType):
        return ()
    code = f.__code__
    return code.co_varnames[: code.co_argcount - len(f.__defaults__ or ())]


_VARIADIC = 0x04 | 0x08  # of code flags: *args and **kwargs


def _takes(f: types.FunctionType, n: int) -> bool:
    """Whether a plain function can be called with so many arguments."""
    return len(_required(f)) <= n <= f.__code__.co_argcount or _variadic(f)


def _variadic(f: types.FunctionType) -> bool:
    return bool(f.__code__.co_flags & _VARIADIC)


def _takes_nothing(f: Any) -> bool:
    if not isinstance(f, types.FunctionType):
        return False
    code = f.__code__
    return code.co_argcount == 0 and not code.co_flags & _VARIADIC
