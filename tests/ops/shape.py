"""Operations that move elements."""

import numpy as np

from ops.row import Op, normal

reshape = Op("reshape", lambda x, shape: x.reshape(shape))
for shape, new in (
    ((), (1,)),
    ((), ()),
    ((6,), (2, 3)),
    ((2, 3), (-1,)),
    ((2, 3), -1),
    ((2, 3, 4), (4, -1)),
    ((0, 3), (3, 0)),
    ((0, 3), (-1, 3)),
):
    reshape.sample(normal(*shape), new)
reshape.refuses(ValueError, r"^reshape: \[2, 3\] of 6 elements does not fit \[4, 2\]", normal(2, 3), (4, 2))
reshape.refuses(ValueError, r"^reshape: \[2, 3\] of 6 elements does not fit \[-1, 4\]", normal(2, 3), (-1, 4))
reshape.refuses(ValueError, r"^reshape: \[2, 3\] of 6 elements does not fit \[-1, -1\]", normal(2, 3), (-1, -1))
reshape.refuses(ValueError, r"^reshape: ", normal(2, 3), (2**40, 2**40))
reshape.refuses(TypeError, r"^reshape: shape must be integers, got \(2\.0, 3\)", normal(2, 3), (2.0, 3))

flatten = Op("flatten", lambda x, start_dim=0: x.reshape(*x.shape[:start_dim], int(np.prod(x.shape[start_dim:]))))
for shape in ((), (3,), (2, 3, 4), (0, 3)):
    flatten.sample(normal(*shape))
flatten.sample(normal(2, 3, 4), 1)
flatten.sample(normal(2, 3, 4), start_dim=-2)
flatten.sample(normal(0, 3, 4), 1)
flatten.refuses(ValueError, "^flatten: axis 3 is out of range for 3 axes", normal(2, 3, 4), 3)

transpose = Op("transpose", lambda x, axes=None: np.transpose(x, axes))
for shape, axes in (
    ((), None),
    ((5,), None),
    ((3, 5), None),
    ((3, 5), (1, 0)),
    ((2, 3, 4), (2, 0, 1)),
    ((2, 3, 4), (0, -1, 1)),
    ((0, 3), None),
    ((4, 7, 9, 5), (0, 2, 3, 1)),
    ((33, 65), None),
):
    transpose.sample(normal(*shape), axes)
transpose.refuses(ValueError, r"^transpose: axes \[0, 0\] is no permutation .*\[2, 3\]", normal(2, 3), (0, 0))
transpose.refuses(ValueError, r"^transpose: axes \[0\] is no permutation .*\[2, 3\]", normal(2, 3), (0,))
transpose.refuses(ValueError, r"^transpose: axis 2 is out of range for 2 axes", normal(2, 3), (0, 2))

broadcast_to = Op("broadcast_to", lambda x, shape: np.broadcast_to(x, shape))
for shape, new in (
    ((), (2, 3)),
    ((3,), (2, 3)),
    ((2, 1), (2, 3)),
    ((1, 3), (0, 3)),
    ((2, 3), (2, 3)),
    ((3, 1, 5), (2, 3, 33, 5)),
):
    broadcast_to.sample(normal(*shape), new)
broadcast_to.refuses(ValueError, r"^broadcast_to: .*\[3\].*\[2\]", normal(3), (2,))
broadcast_to.refuses(ValueError, r"^broadcast_to: .*\[2, 3\].*\[3\]", normal(2, 3), (3,))
broadcast_to.refuses(ValueError, r"^broadcast_to: .*-1", normal(3), (-1, 3))
broadcast_to.refuses((ValueError, MemoryError, OverflowError), r"^broadcast_to: ", normal(1), (2**40, 2**40))

concatenate = Op("concatenate", np.concatenate)
for shapes, axis in (
    ([(3,)], 0),
    ([(3,), (0,), (5,)], 0),
    ([(2, 3), (2, 1), (2, 4)], -1),
    ([(2, 3), (5, 3)], 0),
    ([(2, 3, 4)] * 3, 1),
    ([(0, 2), (0, 3)], 1),
    ([(9, 33), (8, 33)], 0),
):
    concatenate.sample([normal(*shape) for shape in shapes], axis)
concatenate.refuses(ValueError, "^concatenate: needs at least one", [])
concatenate.refuses(ValueError, r"^concatenate: \[2, 3\].*\[3\]", [normal(2, 3), normal(3)])
concatenate.refuses(ValueError, r"^concatenate: .*\[2, 4\].*\[2, 3\]", [normal(2, 3), normal(2, 4)])
concatenate.refuses(ValueError, r"^concatenate: axis 2 is out of range", [normal(2, 3), normal(2, 3)], 2)
concatenate.refuses(ValueError, r"^concatenate: axis 0 is out of range", [normal(), normal()])

stack = Op("stack", np.stack)
for shape, axis in (((), 0), ((3,), 0), ((3,), 1), ((3,), -1), ((2, 3), 1), ((0, 3), 0), ((9, 33), 2)):
    stack.sample([normal(*shape) for _ in range(3)], axis)
stack.refuses(ValueError, "^stack: needs at least one", [])
stack.refuses(ValueError, r"^stack: needs one shape, got \[3\] and \[4\]", [normal(3), normal(4)])
stack.refuses(ValueError, r"^stack: axis 2 is out of range for 2 axes", [normal(3), normal(3)], 2)


def _pad(x, widths, value=0.0):
    if widths and not isinstance(widths[0], tuple):  # PyTorch's flat list starts at the last axis
        pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
        widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    return np.pad(x, widths, constant_values=value) if x.ndim else x


pad = Op("pad", _pad)
for shape, widths in (
    ((3,), ((1, 2),)),
    ((2, 3), ((0, 0), (1, 0))),
    ((2, 3), (1, 2)),
    ((2, 3), (1, 2, 3, 0)),
    ((0, 2), ((1, 1), (0, 0))),
    ((2, 3, 4), [(1, 0), (0, 2), (3, 3)]),
    ((9, 33), (2, 1)),
):
    pad.sample(normal(*shape), widths)
    pad.sample(normal(*shape), widths, value=-1.5)
pad.refuses(ValueError, r"^pad: widths .* do not fit shape \[2, 3\]", normal(2, 3), ((1, 1),))
pad.refuses(ValueError, r"^pad: widths .* do not fit shape \[2, 3\]", normal(2, 3), (1, 1, 1))
pad.refuses(ValueError, r"^pad: widths .* do not fit shape \[2, 3\]", normal(2, 3), ((1, 2, 3), (1, 2)))
pad.refuses(ValueError, r"^pad: widths 3 do not fit shape \[2, 3\]", normal(2, 3), 3)
pad.refuses(TypeError, r"^pad: widths is .*, needs integers", normal(3), (1.0, 2))
pad.refuses(TypeError, r"^pad: value is .*, needs a number", normal(3), (1, 2), None)
pad.refuses(ValueError, r"^pad: .*-1", normal(3), ((-1, 0),))
pad.refuses((ValueError, MemoryError, OverflowError), r"^pad: ", normal(3), ((2**62, 2**62),))
pad.refuses((ValueError, MemoryError, OverflowError), r"^pad: ", normal(3), ((2**40, 2**40),))

astype = Op("astype", lambda x, dtype: x.astype(dtype))
for shape in ((), (3,), (0, 2), (5, 33)):
    astype.sample(normal(*shape), np.float64)  # back to float32 is in test_ops.py: no central differences there
    astype.sample(normal(*shape), "float64")
astype.refuses(TypeError, "^astype: needs float32, float64", normal(3), np.float16)
astype.refuses(TypeError, "^astype: needs float32, float64", normal(3), complex)

index = Op("index", lambda x, key: x[key])
for key in (
    0,
    -1,
    slice(None),
    slice(1, 3),
    slice(None, None, -1),
    slice(None, None, 2),
    slice(3, 0, -2),
    slice(2, 2),
    ...,
    None,
    (0, 1),
    (slice(1, None), 2),
    (..., 0),
    (None, ..., slice(1, 4)),
    (2, ..., slice(None, None, -3)),
    (),
    [0, 2, 2],
    np.array([3, 0]),
    np.array([[0, 1], [1, -1]]),
    ([0, 1], [2, 2]),
    (slice(None), [4, 0, 4]),
    np.array([True, False, True, True]),
    (1, np.array([True, False, True, False, False])),
    np.int64(2),
):
    index.sample(normal(4, 5), key)
index.sample(normal(2, 3, 4), (slice(None), 1, slice(None, None, -1)))
index.sample(normal(), ...)
index.sample(normal(0, 3), slice(None))
index.sample(normal(33, 70), (slice(1, None, 2), slice(None, None, -1)))
index.refuses(IndexError, r"^index: 4 is out of range for axis 0 of shape \[4, 5\]", normal(4, 5), 4)
index.refuses(IndexError, r"^index: -5 is out of range for axis 0 of shape \[4, 5\]", normal(4, 5), -5)
index.refuses(IndexError, r"^index: 3 indices do not fit shape \[4, 5\]", normal(4, 5), (0, 0, 0))
index.refuses(IndexError, r"^index: shape \[4, 5\]: ", normal(4, 5), [4])
index.refuses(IndexError, r"^index: shape \[4, 5\]: ", normal(4, 5), np.array([True, False]))
index.refuses(IndexError, r"^index: shape \[4, 5\]: ", normal(4, 5), "a")
index.refuses(IndexError, r"^index: ", normal(4, 5), 1.5)
