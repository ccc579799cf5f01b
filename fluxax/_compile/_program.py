"""Cache key, trace, program cache: from a function and its arguments to a compiled program.

`find` is what everything else calls. The fast way is one generated guard; the slow way
walks (`_capture`), looks the key up, and if need be traces the function on copies
(`_rebuild`) and checks what came out (`_jaxpr`).
"""

from __future__ import annotations

import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from fluxax import _tree
from fluxax._compile import _check, _explain, _reads
from fluxax._compile._capture import Capture, walk
from fluxax._compile._site import Found, Purpose, Site
from fluxax._compile._spec import Sidestep
from fluxax._compile._trace import Frozen, Trace, guard_for
from fluxax._compile._walk import INPUT
from fluxax._errors import warn
from fluxax._jax import WRAPPERS, trace_settings, tracing, undisturbed
from fluxax._jax_parts import no_compiling
from fluxax._module import static_key

_SITES, _FAILURES, _ATTEMPTS = 512, 2, 50
_sites: OrderedDict[Any, Site] = OrderedDict()
_lock = threading.RLock()


_others: list[Callable[[], None]] = []


def at_clear(forget: Callable[[], None]) -> None:
    """Have `clear_cache` call this, too: for what later rooms keep."""
    _others.append(forget)


def clear_cache() -> None:
    """Forget every compiled program, and what `explain` knows of them; their memory is free."""
    with _lock:
        for site in _sites.values():
            site.release()
        _sites.clear()
        _explain.clear()
        _reads.clear()
        for forget in _others:
            forget()


def no_modules() -> frozenset[int]:
    """Nothing is frozen."""
    return frozenset()


def find(
    f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen = no_modules
) -> Found | None:
    """The program for a call, or `None` if it must run uncompiled."""
    if _explain.contexts.n and _explain.switches.eager:
        _explain.switches.pending = _explain.switches.ints = None
        return None
    code = f.__code__ if type(f) is types.FunctionType else _root(f)
    site = _sites.get((id(code), purpose))
    if site is None:
        site = _site_of(code, f, purpose)
    for entry in site.recent:
        got = entry.guard(f, args)
        if got is not None:
            if entry is not site.recent[0]:
                site.remember(entry)
            program = entry.program
            program.calls += 1
            found = Found(program, got, site)
            if program.calls >= program.due and not _holds(found, f, args, purpose, frozen):
                return None
            return found
    return find_slowly(site, f, args, purpose, frozen)


def _root(f: Any) -> Any:
    """What identifies an objective: the code object in the end, or the class."""
    while type(f) is not types.FunctionType:
        if type(f) is types.MethodType:
            f = f.__func__
        elif isinstance(f, partial):
            f = f.func
        elif isinstance(f, WRAPPERS) or type(f) is _CACHED:
            f = f.__wrapped__
        else:  # an instance with a call of its own; one that makes attributes up has no end
            call = type(f).__call__
            return call.__code__ if type(call) is types.FunctionType else type(f)
    return f.__code__


_CACHED = type(lru_cache(lambda: None))


def _site_of(code: Any, f: Any, purpose: Purpose) -> Site:
    """The site of code that was not seen before; a cell that is run again has the same code."""
    with _lock:
        known = (s for s in _sites.values() if s.purpose is purpose and _is_one(s.code, code))
        site = next(known, None) or _new_site(code, f, purpose)
        site.codes[id(code)] = code  # alive, since its id is in the table
        _sites[id(code), purpose] = site
        if len(_sites) > _SITES:
            (number, _), old = _sites.popitem(last=False)
            del old.codes[number]
            if not old.codes:
                old.release()
        return site


def _is_one(a: Any, b: Any) -> bool:
    """Whether two code objects are of the same text at the same place."""
    return a == b and getattr(a, "co_filename", "") == getattr(b, "co_filename", "")


def _new_site(code: Any, f: Any, purpose: Purpose) -> Site:
    if type(code) is types.CodeType:
        _reads.adopt(code.co_filename)
        where = f"{code.co_filename}:{code.co_firstlineno}"
    else:
        where = getattr(f, "__qualname__", type(f).__qualname__)
    record = _explain.record_for((id(code), purpose.name, purpose.differentiated), where)
    return Site(code, purpose, record)


# --- the slow way -------------------------------------------------------------------------


def find_slowly(
    site: Site, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen = no_modules
) -> Found | None:
    """Walk, look up, and if need be trace."""
    refused = no_compiling()
    _check.setting.read()
    _explain.switches.pending, _explain.switches.ints = None, site.known.ints
    if tracing():
        return None  # inside another JAX transformation: part of that program
    with _lock, undisturbed():
        if site.given_up is None:
            try:
                if refused:
                    raise Sidestep(refused)
                for _ in range(_ATTEMPTS):
                    found = _attempt(site, f, args, purpose, frozen)
                    if found is not None:
                        return found
                raise Sidestep("its numbers do not settle")
            except RecursionError:
                for arg in args:
                    list(_tree.walk_nodes(arg))  # a cycle is an error with a sentence
                raise
            except Sidestep as reason:
                _refuse_if_strict(site, str(reason))
                _explain.switches.pending = partial(_ran_uncompiled, site, str(reason))
        else:
            _refuse_if_strict(site, site.given_up)
        return None


def holds_for(
    n: int, found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> bool:
    """Whether a program that was found for one call is good for `n` of them at once."""
    program = found.program
    program.calls += n - 1
    return program.calls < program.due or _holds(found, f, args, purpose, frozen)


def _holds(found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen) -> bool:
    """Check a program whose time has come; one that is stale ends its function's being compiled."""
    _explain.switches.pending, _explain.switches.ints = None, found.site.known.ints
    with _lock, undisturbed():
        what = _check.stale(found, f, args, purpose, frozen)
        if what is None:
            return True
        for site in {id(s): s for s in _sites.values() if s.code is found.site.code}.values():
            site.given_up = f"its program was no longer what the function is: {what}"
            site.record.uncompiled(site.given_up)
            site.release()
    _check.tell(found, what)
    _refuse_if_strict(found.site, what)
    return False


def _refuse_if_strict(site: Site, reason: str) -> None:
    if _explain.is_strict():
        raise RuntimeError(
            f"{site.record.where} cannot be compiled: {reason}. fx.strict() makes this an error."
        )


def _ran_uncompiled(site: Site, reason: str) -> None:
    """Note that an objective ran uncompiled, and say so once; not if it raised there too."""
    site.failures += 1
    if site.failures >= _FAILURES:
        site.given_up = reason
    if site.record.compiled:
        site.record.uncompiled(reason)
        warn(
            f"{site.record.where} runs uncompiled, which is slow: {reason}. "
            f"{_explain.instead(reason)}"
        )


def _attempt(
    site: Site, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> Found | None:
    """One walk and one look-up or trace; `None` asks for another after something was learnt."""
    capture, arguments, function = walk(site.known, f, args, purpose.differentiated)
    key = (capture.key, trace_settings())
    entry = site.table.get(key)
    if entry is None:
        if _learn_numbers(site, capture):
            return None
        trace = Trace(site, capture, arguments, function, purpose, frozen)
        entry = trace.entry(key)
        if entry is None:
            return None
    site.remember(entry)
    got = entry.guard(f, args)
    if got is None:  # the same program for other objects, or a NumPy array in a JAX array's place
        guard, _ = guard_for(entry.program, arguments, function)
        entry = entry._replace(guard=guard)
        site.remember(entry)
        got = entry.guard(f, args)
    if got is None:  # an object that compares differently each time
        raise Sidestep("what it reads changes while it is looked at")
    program = entry.program
    program.calls += 1
    found = Found(program, got, site)
    now = program.calls >= program.due or _check.setting.every
    if now and not _holds(found, f, args, purpose, frozen):
        raise Sidestep(site.given_up or "")
    return found


def _learn_numbers(site: Site, capture: Capture) -> bool:
    """Try numbers that changed since the last trace as inputs; whether there are any."""
    changed = [
        label
        for label, value in capture.constants.items()
        if label in site.seen
        and site.seen[label] != static_key(value)
        and label not in site.known.numbers
    ]
    site.seen.update((label, static_key(v)) for label, v in capture.constants.items())
    for label in changed[:1] if site.careful else changed:
        site.known.numbers[label] = INPUT
    return bool(changed)
