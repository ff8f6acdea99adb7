"""The C++ core as Python sees it; a test holds these signatures against the compiled module.

Rules of every function: float arrays are C-contiguous, aligned, native float32 or float64, one dtype per call
(TypeError otherwise); indices are int64; shapes that do not fit raise ValueError, indices out of range IndexError.
Outputs are new arrays; only names with a trailing underscore, `batch_norm` (its running statistics) and the optimisers
write to arguments. Axes are non-negative and sorted. Backward functions take `dy` first.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
# dy, y, x, activation, dweight, dbias: the gradient of a linear layer's weight, made while the optimiser uses it, which
# writes what linear_backward returns to dweight and dbias unless they are None.
LinearGradient: TypeAlias = tuple[Array, Array, Array, str, Array | None, Array | None]
Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[int, int, int, int]  # top, bottom, left, right

# -- runtime ---------------------------------------------------------------------------------------------------------
def info() -> dict[str, Any]: ...  # isa, isas (usable here), compiler, num_threads, max_threads
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def keep_awake() -> None: ...  # threads that wait for a call, and do not sleep yet, wait for as long again
def kernel_counts() -> dict[str, int]: ...
def reset_kernel_counts() -> None: ...
def arena_stats() -> dict[str, int]: ...  # bytes_reserved, bytes_in_use, blocks_in_use
def peak_flops() -> float: ...  # operations/s of the threads and instruction set in use, 2 per multiply-add
def copy_rate(nbytes: int) -> float: ...  # bytes/s, read and written, between two arrays that have nbytes together
def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array: ...

# -- gemm: matmul [..., M, K] @ [..., K, N] -> [..., M, N], batch axes broadcast -------------------------------------
def matmul(a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array: ...

# x [..., in], weight [out, in], bias [out] -> y [..., out]; activation: "none", "relu", "leaky_relu", "sigmoid", "tanh"
# (leaky_relu has slope 0.01). The backward of each of these needs only y. trained: weight will be updated, so that
# threads had better read none of it together; y is the same.
def linear(x: Array, weight: Array, bias: Array | None, activation: str = "none", trained: bool = True) -> Array: ...
def linear_backward(
    dy: Array, y: Array, x: Array, weight: Array, activation: str, need_dx: bool, need_dweight: bool, need_dbias: bool
) -> tuple[Array | None, Array | None, Array | None]: ...

# -- attention: query [N, H, L, E], key [N, H, S, E], value [N, H, S, Ev] -> y [N, H, L, Ev], lse [N, H, L] ----------
# y = dropout(softmax(query @ key.T * scale + attn_mask)) @ value, lse the logarithm of each row's sum of exp(score).
# attn_mask [N, H, L, S], its first three axes may be 1: bool (False hides a key) or numbers to add. past: query i sees
# keys 0..past + i; None: all. A row that sees no key is 0, its lse infinite. dropout: ceil(S / 4) counters a row.
def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None,
    past: int | None,
    scale: float,
    dropout_p: float,
    seed: int,
    offset: int,
) -> tuple[Array, Array]: ...
def scaled_dot_product_attention_backward(
    dy: Array,
    y: Array,
    lse: Array,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None,
    past: int | None,
    scale: float,
    dropout_p: float,
    seed: int,
    offset: int,
) -> tuple[Array, Array, Array]: ...  # dquery, dkey, dvalue

# The same on qkv [N, L, 3 H E], where queries, keys and values of all heads stand beside each other -> y [N, L, H E].
def self_attention(
    qkv: Array,
    num_heads: int,
    attn_mask: Array | None,
    past: int | None,
    scale: float,
    dropout_p: float,
    seed: int,
    offset: int,
) -> tuple[Array, Array]: ...
def self_attention_backward(
    dy: Array,
    y: Array,
    lse: Array,
    qkv: Array,
    num_heads: int,
    attn_mask: Array | None,
    past: int | None,
    scale: float,
    dropout_p: float,
    seed: int,
    offset: int,
) -> Array: ...  # dqkv

# Each pair (a, b) of neighbours in x [..., L, E] becomes (a cos - b sin, b cos + a sin); cos, sin [L, E / 2].
def rotate_pairs(x: Array, cos: Array, sin: Array) -> Array: ...

# -- conv: x [N, C, H, W], weight [O, C/groups, KH, KW], bias [O] -> [N, O, OH, OW] ----------------------------------
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
) -> Array: ...
def conv2d_backward(
    dy: Array,
    y: Array | None,
    x: Array,
    weight: Array,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]: ...

# Of windows [2, 2] of the convolution: y and indices [N, O, OH // 2, OW // 2], uint8: 2 * row + column of the maximum;
# None in their place unless needed.
def conv2d_max_pool2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
    need_indices: bool = True,
) -> tuple[Array, Any]: ...
def conv2d_max_pool2d_backward(
    dy: Array,
    y: Array,
    indices: Array,
    x: Array,
    weight: Array,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]: ...

# -- pool: x [N, C, H, W]; indices hold the offset within the window: uint8, or int32 for windows over 256 -----------
def max_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Array, Array]: ...
def max_pool2d_backward(
    dy: Array, indices: Array, x_shape: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array: ...
def avg_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Array: ...
def avg_pool2d_backward(
    dy: Array, x_shape: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array: ...

# -- elementwise, one operand ----------------------------------------------------------------------------------------
def neg(x: Array) -> Array: ...
def relu(x: Array) -> Array: ...
def relu_backward(dy: Array, y: Array) -> Array: ...
def leaky_relu(x: Array, negative_slope: float) -> Array: ...
def leaky_relu_backward(dy: Array, x: Array, negative_slope: float) -> Array: ...
def sigmoid(x: Array) -> Array: ...
def sigmoid_backward(dy: Array, y: Array) -> Array: ...
def tanh(x: Array) -> Array: ...
def tanh_backward(dy: Array, y: Array) -> Array: ...
def gelu(x: Array, approximate: bool) -> Array: ...  # approximate: the tanh form
def gelu_backward(dy: Array, x: Array, approximate: bool) -> Array: ...
def silu(x: Array) -> Array: ...
def silu_backward(dy: Array, x: Array) -> Array: ...
def elu(x: Array, alpha: float) -> Array: ...
def elu_backward(dy: Array, x: Array, alpha: float) -> Array: ...
def softplus(x: Array, beta: float, threshold: float) -> Array: ...
def softplus_backward(dy: Array, x: Array, beta: float, threshold: float) -> Array: ...
def exp(x: Array) -> Array: ...
def log(x: Array) -> Array: ...
def sqrt(x: Array) -> Array: ...
def sqrt_backward(dy: Array, y: Array) -> Array: ...
def abs(x: Array) -> Array: ...
def abs_backward(dy: Array, x: Array) -> Array: ...
def clip(x: Array, low: float, high: float) -> Array: ...
def clip_backward(dy: Array, x: Array, low: float, high: float) -> Array: ...

# -- elementwise, two operands, NumPy broadcasting -------------------------------------------------------------------
def add(a: Array, b: Array) -> Array: ...
def sub(a: Array, b: Array) -> Array: ...
def mul(a: Array, b: Array) -> Array: ...
def div(a: Array, b: Array) -> Array: ...
def pow(a: Array, b: Array) -> Array: ...
def maximum(a: Array, b: Array) -> Array: ...
def minimum(a: Array, b: Array) -> Array: ...
def where(condition: npt.NDArray[np.bool_], a: Array, b: Array) -> Array: ...

# Gradients of these have the broadcast shape of dy; `sum_to` brings them back. Ties of maximum and minimum halve dy.
def pow_backward(dy: Array, a: Array, b: Array, y: Array) -> tuple[Array, Array]: ...
def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]: ...
def minimum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]: ...
def where_backward(dy: Array, condition: npt.NDArray[np.bool_]) -> tuple[Array, Array]: ...

# -- reductions: empty `axes` means none, the caller passes all of them for a full reduction -------------------------
def sum(x: Array, axes: Sequence[int], keepdims: bool) -> Array: ...
def mean(x: Array, axes: Sequence[int], keepdims: bool) -> Array: ...
def max(x: Array, axes: Sequence[int], keepdims: bool) -> Array: ...
def min(x: Array, axes: Sequence[int], keepdims: bool) -> Array: ...
def var(x: Array, axes: Sequence[int], correction: int, keepdims: bool) -> Array: ...
def argmax(x: Array, axis: int) -> npt.NDArray[np.int64]: ...
def sum_to(x: Array, shape: Sequence[int]) -> Array: ...
def broadcast_to(x: Array, shape: Sequence[int]) -> Array: ...

# y and dy keep the reduced axes (size 1); ties share dy evenly.
def extremum_backward(dy: Array, x: Array, y: Array, axes: Sequence[int]) -> Array: ...
def var_backward(dy: Array, x: Array, axes: Sequence[int], correction: int) -> Array: ...

# -- shape -----------------------------------------------------------------------------------------------------------
def transpose(x: Array, axes: Sequence[int]) -> Array: ...
def concatenate(arrays: Sequence[Array], axis: int) -> Array: ...
def pad(x: Array, widths: Sequence[Pair], value: float) -> Array: ...
def slice(x: Array, starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Array: ...
def slice_backward(dy: Array, x_shape: Sequence[int], starts: Sequence[int], steps: Sequence[int]) -> Array: ...

# -- softmax and losses: rows of the last axis -----------------------------------------------------------------------
def softmax(x: Array) -> Array: ...
def softmax_backward(dy: Array, y: Array) -> Array: ...
def log_softmax(x: Array) -> Array: ...
def log_softmax_backward(dy: Array, y: Array) -> Array: ...

# logits [N, C], target [N] int64 in 0..C-1 or ignore_index. reduction: "mean", "sum" -> loss [], "none" -> loss [N].
# dlogits is the gradient of the reduced loss (of each row's loss for "none"), or None unless need_grad. weight [C] is
# what a row of each class counts.
def cross_entropy(
    logits: Array,
    target: npt.NDArray[np.int64],
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    need_grad: bool,
    weight: Array | None = None,
) -> tuple[Array, Array | None]: ...

# The same of log_probs [N, C], without the softmax.
def nll_loss(
    log_probs: Array,
    target: npt.NDArray[np.int64],
    ignore_index: int,
    reduction: str,
    need_grad: bool,
    weight: Array | None = None,
) -> tuple[Array, Array | None]: ...

# x and target have one shape; dx is the gradient for dloss == 1 (elementwise for "none"), or None unless need_grad.
def mse_loss(x: Array, target: Array, reduction: str, need_grad: bool) -> tuple[Array, Array | None]: ...
def binary_cross_entropy_with_logits(
    x: Array, target: Array, reduction: str, need_grad: bool
) -> tuple[Array, Array | None]: ...
def hinge_loss(x: Array, target: Array, reduction: str, need_grad: bool) -> tuple[Array, Array | None]: ...
def l1_loss(x: Array, target: Array, reduction: str, need_grad: bool) -> tuple[Array, Array | None]: ...
def kl_div(
    x: Array, target: Array, log_target: bool, reduction: str, need_grad: bool
) -> tuple[Array, Array | None]: ...
def smooth_l1_loss(
    x: Array, target: Array, beta: float, reduction: str, need_grad: bool
) -> tuple[Array, Array | None]: ...  # beta 0: l1_loss

# -- normalisation ---------------------------------------------------------------------------------------------------
# x [N, C, ...]; weight, bias [C] or both None. training: statistics of the batch, and the running ones (if given) move
# by `momentum` (running_var with the unbiased variance); otherwise the running ones are used. Returns y, mean [C],
# rstd [C].
def batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]: ...
def batch_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, rstd: Array, training: bool
) -> tuple[Array, Array, Array]: ...  # dx, dweight [C], dbias [C]

# x [..., D], weight, bias [D] or both None -> y, mean [...], rstd [...]
def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]: ...
def layer_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array, Array]: ...  # dx, dweight [D], dbias [D]

# -- recurrent layers: x [T, N, in], or indices [T, N] int64 of the ones in it; states [N, H], None for zeros --------
# weight_ih [G * H, in], weight_hh [G * H, H], both biases [G * H] or None, gates in PyTorch's order: G is 1 (rnn),
# 4 (lstm: i, f, g, o) or 3 (gru: r, z, n). reverse: from the last time step to the first. y [T, N, H]; h_n is y after
# the last step taken. gates [T, N, G * H] after their activations, cells and hn [T, N, H] are for the backward; hn is
# what r multiplies. Gradients not needed, and dx of indices, are None; dbias is that of either bias.
def rnn(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    relu: bool,
    reverse: bool,
) -> tuple[Array, Array]: ...  # y, h_n
def rnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    y: Array,
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    relu: bool,
    reverse: bool,
    need_dx: bool,
    need_dh0: bool,
    need_dweights: bool,
) -> tuple[Array | None, ...]: ...  # dx, dh0, dweight_ih, dweight_hh, dbias
def lstm(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reverse: bool,
) -> tuple[Array, Array, Array, Array, Array]: ...  # y, h_n, c_n, gates, cells
def lstm_backward(
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    gates: Array,
    cells: Array,
    y: Array,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    reverse: bool,
    need_dx: bool,
    need_dh0: bool,
    need_dc0: bool,
    need_dweights: bool,
) -> tuple[Array | None, ...]: ...  # dx, dh0, dc0, dweight_ih, dweight_hh, dbias
def gru(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reverse: bool,
) -> tuple[Array, Array, Array, Array]: ...  # y, h_n, gates, hn
def gru_backward(
    dy: Array | None,
    dh_n: Array | None,
    gates: Array,
    hn: Array,
    y: Array,
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    reverse: bool,
    need_dx: bool,
    need_dh0: bool,
    need_dweights: bool,
) -> tuple[Array | None, ...]: ...  # dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh

# -- random and gather -----------------------------------------------------------------------------------------------
# Philox 4x32-10 keyed by seed at counter offset: element i is kept if its uniform is >= p, and scaled by 1/(1-p).
# The same call on dy is the backward.
def dropout(x: Array, p: float, seed: int, offset: int) -> Array: ...

# x[rows] of any dtype, rows [K]: [K, ...]; written to `out` if it is given, which capture does not know of
def take_rows(x: Array, rows: npt.NDArray[np.int64], out: Array | None = None) -> Array: ...
def embedding(weight: Array, indices: npt.NDArray[np.int64]) -> Array: ...  # [V, D], [...] -> [..., D]
def embedding_backward(dy: Array, indices: npt.NDArray[np.int64], num_embeddings: int) -> Array: ...

# -- rows of a matrix that is mostly zeros: see PackedRows -----------------------------------------------------------
# y [rows, out] = activation(x[rows] @ weight + bias), weight [columns, width], bias [out]. width is a number of whole
# cache lines of 64 bytes, and the columns of the weight from out on are to be 0; those of its gradient are.
def packed_linear(x: PackedRows, rows: npt.NDArray[np.int64], weight: Array, bias: Array, activation: str) -> Array: ...
def packed_linear_backward(
    dy: Array, y: Array, x: PackedRows, rows: npt.NDArray[np.int64], weight: Array, activation: str
) -> tuple[Array, Array]: ...  # dweight [columns, width], dbias [out]

# -- class labels, for metrics of a captured step ---------------------------------------------------------------------
def as_int64(x: Array) -> npt.NDArray[np.int64]: ...  # any integers; IndexError for what int64 does not hold
def equal(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]: ...  # of one shape, or b []
def count(x: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]: ...  # how many are true, []
def share(x: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]: ...  # the same as a mean, []

# -- optimisers: one call for all parameters, written in place -------------------------------------------------------
# momentum_buffers: empty list when momentum == 0; `first` makes buffer = gradient, as PyTorch's first step does.
def sgd_(
    params: Sequence[Array],
    grads: Sequence[Array | LinearGradient],
    momentum_buffers: Sequence[Array],
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None: ...

# step counts from 1 (bias correction); decoupled: AdamW's weight decay.
def adam_(
    params: Sequence[Array],
    grads: Sequence[Array | LinearGradient],
    exp_avgs: Sequence[Array],
    exp_avg_sqs: Sequence[Array],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None: ...

# grad_avgs: empty list unless centred; momentum_buffers: empty list when momentum == 0.
def rmsprop_(
    params: Sequence[Array],
    grads: Sequence[Array | LinearGradient],
    square_avgs: Sequence[Array],
    grad_avgs: Sequence[Array],
    momentum_buffers: Sequence[Array],
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
) -> None: ...
def adagrad_(
    params: Sequence[Array],
    grads: Sequence[Array | LinearGradient],
    sums: Sequence[Array],
    step: int,
    lr: float,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> None: ...
def adadelta_(
    params: Sequence[Array],
    grads: Sequence[Array | LinearGradient],
    square_avgs: Sequence[Array],
    acc_deltas: Sequence[Array],
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
) -> None: ...
def l2_norm(arrays: Sequence[Array]) -> float: ...  # of all elements together, summed in float64

# scale_ by max_norm / norm if the norm is larger than max_norm and finite; returns the norm [] float64
def clip_norm_(arrays: Sequence[Array], max_norm: float) -> Array: ...
def scale_(arrays: Sequence[Array], factor: float) -> None: ...
def require_finite(arrays: Sequence[Array], what: str) -> None: ...  # FloatingPointError that begins with `what`

# -- recorded steps (pynn.replay) ------------------------------------------------------------------------------------

class Recording:
    """Computations of this module's functions, to be run again on the same memory."""

    def __init__(self) -> None: ...
    # Makes function(*args) step `at` (which len() of them append) without computing it; it will write to `outputs`.
    # The caller keeps the memory of all arrays alive. With `scratch`, the function calls elementwise functions of this
    # module on arrays of one size: they go over them once, in blocks, and their results in `scratch` are not written.
    def record(
        self,
        at: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        outputs: Sequence[Array],
        scratch: Sequence[Array] | None = None,
    ) -> None: ...
    # Runs the steps from `begin` to before `end`, all by default. Raises what a step raises, and leaves out those after
    # it; returns how often threads waited for each other. `position` is where the latest run ended.
    def run(self, begin: int = 0, end: int | None = None) -> int: ...
    @property
    def position(self) -> int: ...
    # A number for the memory that an array is, or is a view of: while it lives, no other has it.
    @staticmethod
    def memory(array: Array) -> int: ...
    # The arrays in nested lists and tuples, and for each its `memory`.
    @staticmethod
    def arrays_in(value: Any) -> tuple[list[Array], list[int]]: ...
    # The `memory` of arrays among arguments and among results, and the bytes of the latter, in whole
    # cache lines.
    @staticmethod
    def memory_of_call(args: Any, outputs: Any) -> tuple[list[int], list[int], list[int]]: ...
    # The same lists and tuples with arrays in `block` for those whose memory has an offset in bytes in `places`.
    @staticmethod
    def place(value: Any, places: dict[int, int], block: Array) -> Any: ...
    # Whether arguments are as expected, (type, own, copied) for each, and all else is as `unchanged` says. Arrays of
    # the same dtype and shape are copied to the array `own`, where `copied`; an `own` that is no array must be the
    # argument itself. None may share memory with the extents `written`.
    @staticmethod
    def is_ready(
        args: tuple[Any, ...],
        expected: tuple[Any, ...],
        written: Array,
        attributes: tuple[Any, ...],
        entries: tuple[Any, ...],
        items: tuple[Any, ...],
        conditions: tuple[Any, ...],
    ) -> bool: ...
    # Where arrays lie, as addresses [n, 2] of first bytes and of those behind the last; and which arrays lie there.
    @staticmethod
    def extents(arrays: Sequence[Array]) -> Array: ...
    @staticmethod
    def overlapping(arrays: Sequence[Array], extents: Array) -> list[int]: ...
    # Whether things are where they were, compared by identity: (thing, name, value) for each attribute, (dict, key,
    # value) for each entry, (dict or list, tuple of all values) for each container; and whether callables return what
    # they did, compared by equality: (callable, value) for each condition.
    @staticmethod
    def unchanged(
        attributes: tuple[Any, ...],
        entries: tuple[Any, ...],
        items: tuple[Any, ...],
        conditions: tuple[Any, ...] = (),
    ) -> bool: ...
    # Calls the actions, then sets attributes: (thing, name, value) for each.
    @staticmethod
    def finish(actions: tuple[Callable[[], object], ...], attributes: tuple[Any, ...]) -> None: ...
    def __len__(self) -> int: ...

class PackedRows:
    """A matrix [rows, columns] that is mostly zeros, packed; another one may be put in its place."""

    def __init__(self) -> None: ...
    # Whether it holds x now: not if more than a third of it is not 0, or something is NaN or infinite.
    def pack(self, x: Array) -> bool: ...
    # The same for a matrix in SciPy's format CSR, which may have any share of zeros; values of one place are added up.
    def pack_csr(
        self, offsets: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], values: Array, columns: int
    ) -> bool: ...
    def take(self, other: PackedRows) -> None: ...  # which is empty then
    def clear(self) -> None: ...
    @property
    def shape(self) -> tuple[int, int] | None: ...  # None: empty
