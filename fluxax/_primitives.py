"""What is understood of JAX's primitives: their names, and the programs inside them.

Nothing is read by the name of a parameter. Which programs a primitive runs, JAX tells
(`jaxprs_in_params`); how operands and results belong to them follows from how many there are and
from their shapes. A primitive that is not on these lists, or does not look as its name says, is not
understood, and whoever asks assumes the worst of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from fluxax._jax import ShapedArray, holds, jaxprs_in_params

Jaxpr = Any

#: Primitives that run one program, once, on just their operands.
CALLS = frozenset(
    """call checkpoint closed_call core_call custom_jvp_call custom_vmap_call eval_jaxpr jit pjit
    remat remat2 shard_map xla_metadata_call""".split()
)

#: Primitives with operands and parameters only: no other arithmetic happens inside than that of all
#: operands with each other, and Python is not called. Those that reduce or scatter may have the
#: program of their reducer among the parameters; it sees elements of the arrays.
PLAIN = frozenset(
    """abs acos acosh add add_any all_gather all_to_all and approx_top_k argmax argmin asin asinh
    atan atan2 atanh axis_index bessel_i0e bessel_i1e bitcast_convert_type broadcast_in_dim cbrt
    ceil cholesky clamp clz complex concatenate conj conv_general_dilated convert_element_type copy
    copy_p cos cosh cumlogsumexp cummax cummin cumprod cumsum device_put digamma div dot_general
    dynamic_slice dynamic_update_slice eig eigh eq eq_to erf erf_inv erfc exp exp2 expand_dims expm1
    fft floor gather ge gt hessenberg householder_product igamma igamma_grad_a igammac imag
    integer_pow iota is_finite le le_to lgamma log log1p log2 logistic lt lt_to lu
    lu_pivots_to_permutation max min mul mulhi name ne neg nextafter not one_minus_square
    optimization_barrier or pad pbroadcast pmax pmin polygamma population_count pow ppermute psum
    psum_invariant pvary qr ragged_dot_general random_bits random_clone random_fold_in random_gamma
    random_seed random_split random_unwrap random_wrap real reduce reduce_and reduce_max reduce_min
    reduce_or reduce_precision reduce_prod reduce_scatter reduce_sum reduce_window
    reduce_window_max reduce_window_min reduce_window_sum reduce_xor regularized_incomplete_beta
    rem reshape reshard rev rng_bit_generator rng_uniform round rsqrt scatter scatter-add
    scatter-max scatter-min scatter-mul scatter-sub schur select_and_gather_add select_and_scatter
    select_and_scatter_add select_n sharding_constraint shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh slice sort split sqrt square squeeze stack stop_gradient sub
    svd symmetric_product tan tanh threefry2x32 tile top_k transpose triangular_solve tridiagonal
    tridiagonal_solve unstack xor zeros_like zeta""".split()
)

#: Primitives that call Python while the program runs.
CALLBACKS = frozenset("buffer_callback debug_callback io_callback pure_callback".split())

#: Primitives not understood otherwise that call none, whatever functions they have: rules of
#: differentiation, of partition, of printing.
_QUIET = frozenset(
    """cond custom_jvp_call_jaxpr custom_lin custom_linear_solve custom_partitioning custom_vjp_call
    debug_print linear_call remat_opt scan while""".split()
)
_KNOWN = PLAIN | CALLS | _QUIET


class Scan(NamedTuple):
    """A loop of as many turns as its stacked operands are long.

    Its operands are constants, carried values and stacked ones, in this order, and so are those of
    the body; results are carried values, then stacked ones.
    """

    body: Jaxpr
    constants: int
    carried: int


def inside(eqn: Any) -> list[Jaxpr]:
    """The programs that an equation has, whatever it does with them."""
    return [getattr(inner, "jaxpr", inner) for inner in jaxprs_in_params(eqn.params)]


def called(eqn: Any) -> Jaxpr | None:
    """The program that an equation runs once, on just its operands, if it does."""
    if eqn.primitive.name not in CALLS or not holds("calls"):
        return None
    programs = inside(eqn)
    fits = len(programs) == 1 and _fits(programs[0], eqn.invars, eqn.outvars)
    return programs[0] if fits else None


def branches(eqn: Any) -> list[Jaxpr] | None:
    """The programs one of which an equation runs on its operands but the first, if it does."""
    if eqn.primitive.name != "cond" or not holds("cond"):
        return None
    programs = inside(eqn)
    fits = all(_fits(p, eqn.invars[1:], eqn.outvars, alike=True) for p in programs)
    return programs if programs and fits else None


def scanned(eqn: Any) -> Scan | None:
    """The parts of a scan, from the shapes: what is stacked has an axis more than in the body."""
    if eqn.primitive.name != "scan" or not holds("scan"):
        return None
    programs = inside(eqn)
    if len(programs) != 1 or not _fits(body := programs[0], eqn.invars, eqn.outvars):
        return None
    kept = _kept(eqn.invars, body.invars)
    carried = _kept(eqn.outvars, body.outvars)
    if kept is None or carried is None or carried > kept:
        return None
    constants = kept - carried
    turning = zip(body.invars[constants:kept], body.outvars[:carried], strict=True)
    alike = all(_shape(a) == _shape(b) for a, b in turning)
    return Scan(body, constants, carried) if alike else None


def _fits(program: Jaxpr, operands: Any, results: Any, alike: bool = False) -> bool:
    """Whether a program takes as many operands and has as many results (of the same shapes)."""
    if (len(program.invars), len(program.outvars)) != (len(operands), len(results)):
        return False
    pairs = [*zip(program.invars, operands, strict=True)]
    pairs += [*zip(program.outvars, results, strict=True)]
    arrays = all(is_array(a) and is_array(b) for a, b in pairs)
    return arrays and (not alike or all(_shape(a) == _shape(b) for a, b in pairs))


def is_var(atom: Any) -> bool:
    """Whether an operand is a variable; literals have a value."""
    return not hasattr(atom, "val")


def is_array(atom: Any) -> bool:
    """Whether a value of a program is an array, not a reference to one that can be written to."""
    return isinstance(atom.aval, ShapedArray)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _kept(outer: Any, inner: Any) -> int | None:
    """How many values, the first ones, have one shape outside and inside; the rest is stacked."""
    kinds = []
    for a, b in zip(outer, inner, strict=True):
        whole, part = _shape(a), _shape(b)
        if part not in (whole, whole[1:]):
            return None
        kinds.append(whole == part)
    n = sum(kinds)
    return n if all(kinds[:n]) else None


def turns(eqn: Any) -> int:
    """How often the programs of an equation run: the length of what a scan stacks, otherwise 1."""
    scan = scanned(eqn)
    if scan is None:
        return 1
    stacked = [*eqn.invars[scan.constants + scan.carried :], *eqn.outvars[scan.carried :]]
    lengths = [_shape(v)[0] for v in stacked]
    return lengths[0] if lengths else eqn.params.get("length", 1)


def may_loop(jaxpr: Jaxpr) -> bool:
    """Whether a program has a loop in it, or something that may be one."""
    return any(
        eqn.primitive.name in ("scan", "while") or _strange(eqn) or any(map(may_loop, inside(eqn)))
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def _strange(eqn: Any) -> bool:
    """Whether an equation runs programs in a way that is not understood."""
    return eqn.primitive.name not in _KNOWN and (bool(inside(eqn)) or _may_call(eqn))


def has(jaxpr: Jaxpr, primitive: str) -> bool:
    """Whether a program, or one inside it, has an operation."""
    return any(
        eqn.primitive.name == primitive or any(has(inner, primitive) for inner in inside(eqn))
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def calls_back(jaxpr: Jaxpr) -> str | None:
    """The first primitive by which a program may call Python functions while it runs.

    They would see copies. One that is not known may, if it has an effect or a function.
    """
    return next(_callbacks(jaxpr), None)


def _callbacks(jaxpr: Jaxpr) -> Iterator[str]:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in CALLBACKS or (name not in _KNOWN and _may_call(eqn)):
            yield name
        for inner in inside(eqn):
            yield from _callbacks(inner)


def _may_call(eqn: Any) -> bool:
    return bool(getattr(eqn, "effects", ())) or _has_function(list(eqn.params.values()))


def _has_function(value: Any, depth: int = 4) -> bool:
    """Whether a parameter is a function or holds one; objects of JAX's own are looked into.

    From 0.12 on JAX writes `einsum` or `searchsorted` as such an object, which has none.
    """
    if depth == 0 or isinstance(value, type):
        return depth == 0 and callable(value)
    if isinstance(value, (tuple, list)):
        return any(_has_function(v, depth - 1) for v in value)
    if isinstance(value, dict):
        return any(_has_function(v, depth - 1) for v in value.values())
    of_jax = type(value).__module__.split(".")[0] in ("jax", "jaxlib")
    if of_jax and hasattr(value, "__dict__") and not hasattr(value, "__wrapped__"):
        return any(_has_function(v, depth - 1) for v in vars(value).values())
    return callable(value)


def depth(eqn: Any) -> float:
    """How many products each element of a matrix product adds up."""
    shapes = [_shape(v) for v in eqn.invars[:2]]
    try:
        (contracted, _), _ = eqn.params["dimension_numbers"]  # as `lax.dot_general` calls them
        return math.prod(shapes[0][i] for i in contracted)
    except (KeyError, TypeError, ValueError):  # right without a batch, too many with one
        out = math.prod(_shape(eqn.outvars[0]))
        return math.sqrt(math.prod(map(math.prod, shapes)) / out) if out else 0.0
