"""What is written for the compiler: derivative rules and options that make XLA fast on a CPU.

Layers call these. Each has its plain formula beside it (`plain_dense`, …), computes the same to
rounding, and takes every derivative that the plain one takes. On an accelerator the plain formula
is what runs. `docs/design/cpu.md` says what each of them is against, with measurements.
"""

from fluxax.kernels._batchnorm import batchnorm, plain_batchnorm
from fluxax.kernels._choice import choose, chosen
from fluxax.kernels._conv import AXES, conv, of_one_type, plain_conv
from fluxax.kernels._dense import dense, plain_dense
from fluxax.kernels._lstm import lstm, plain_lstm
from fluxax.kernels._memory import keep_memory
from fluxax.kernels._options import not_taken, options_for
from fluxax.kernels._settled import settled

__all__ = [
    "AXES",
    "batchnorm",
    "choose",
    "chosen",
    "conv",
    "dense",
    "keep_memory",
    "lstm",
    "not_taken",
    "of_one_type",
    "options_for",
    "plain_batchnorm",
    "plain_conv",
    "plain_dense",
    "plain_lstm",
    "settled",
]
