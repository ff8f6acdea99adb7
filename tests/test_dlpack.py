"""DLPack: the same memory on both sides, alive as long as either, and what cannot be shared is refused."""

import gc
import weakref

import numpy as np
import pytest

import pynn
from pynn import _core, nn

pytestmark = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="needs NumPy 2.1, which imports memory that can be written"
)

DTYPES = [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]


class Producer:
    """An array behind the protocol alone, which notes what it is asked for."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_to_and_from_numpy_is_the_same_memory(dtype, shape):
    a = np.ones(shape, dtype)
    t = pynn.from_dlpack(a)
    assert type(t) is pynn.Tensor
    assert (t.shape, t.dtype, t.requires_grad) == (shape, dtype, False)
    back = np.from_dlpack(t)
    assert address(t.data) == address(a) == address(back)
    t.data[...] = 0
    assert not a.any()
    assert not back.any()
    back[...] = 1
    assert a.all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_and_from_pytorch_is_the_same_memory(dtype):
    torch = pytest.importorskip("torch")
    t = pynn.Tensor(np.zeros((2, 3), dtype))
    theirs = torch.from_dlpack(t)
    assert theirs.data_ptr() == address(t.data)
    theirs += 1 if dtype is not np.bool_ else True
    assert t.data.all()
    ours = pynn.from_dlpack(theirs)
    assert address(ours.data) == address(t.data)
    ours[0] = 0
    assert theirs.sum() == 3


def test_results_of_the_core_are_shared_too():
    y = pynn.randn(64, 64) @ pynn.randn(64, 64)
    assert address(np.from_dlpack(y)) == address(y.data)


def test_memory_lives_as_long_as_either_side():
    gc.collect()  # what earlier tests left is not to be freed between the counts
    before = _core.arena_stats()["blocks_in_use"]
    y = pynn.tensor(np.ones((64, 64), np.float32)) @ np.ones((64, 64), np.float32)
    theirs = np.from_dlpack(y)
    del y
    gc.collect()
    assert (theirs == 64).all()
    assert _core.arena_stats()["blocks_in_use"] == before + 1
    del theirs
    assert _core.arena_stats()["blocks_in_use"] == before

    class Array(np.ndarray):
        pass

    owner = np.full(5, 3.0).view(Array)
    gone = weakref.ref(owner)
    t = pynn.from_dlpack(owner)
    del owner
    gc.collect()
    assert gone() is not None
    assert t.tolist() == [3.0] * 5
    del t
    gc.collect()
    assert gone() is None


def test_a_capsule_that_nobody_takes_is_freed():
    gc.collect()
    before = _core.arena_stats()["blocks_in_use"]
    y = pynn.tensor(np.ones((64, 64), np.float32)) @ np.ones((64, 64), np.float32)
    capsule = y.__dlpack__()
    del y
    assert _core.arena_stats()["blocks_in_use"] == before + 1
    del capsule
    assert _core.arena_stats()["blocks_in_use"] == before


def test_what_has_other_strides_is_copied():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    for view in (a.T, a[:, ::2], a[::-1]):
        t = pynn.from_dlpack(view)
        assert t.data.flags.c_contiguous
        assert np.array_equal(t.data, view)
        assert not np.shares_memory(t.data, a)
        with pytest.raises(BufferError, match=r"from_dlpack: ndarray .* is not C-contiguous, .* which needs a copy"):
            pynn.from_dlpack(view, copy=False)
    assert np.shares_memory(pynn.from_dlpack(a, copy=False).data, a)
    assert not np.shares_memory(pynn.from_dlpack(a, copy=True).data, a)


def test_another_byte_order_needs_a_copy():
    a = np.ones(3, ">f4" if np.little_endian else "<f4")
    assert pynn.from_dlpack(a).data.dtype.isnative
    with pytest.raises(
        BufferError, match=r"from_dlpack: ndarray \[3\] of .f4 .* native byte order, which needs a copy"
    ):
        pynn.from_dlpack(a, copy=False)


def test_a_mask_is_refused():
    with pytest.raises(TypeError, match=r"from_dlpack: MaskedArray has a mask.* x\.filled"):
        pynn.from_dlpack(np.ma.masked_array(np.ones(3, np.float32), [0, 1, 0]))


def test_read_only_memory_cannot_be_written():
    a = np.zeros(3, np.float32)
    a.flags.writeable = False
    t = pynn.from_dlpack(a)
    assert address(t.data) == address(a)
    with pytest.raises(ValueError, match="read-only"):
        t[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        t += 1
    assert not a.any()
    with pytest.raises(BufferError):  # the old form of a capsule cannot say that it is read-only
        t.__dlpack__()
    assert not np.from_dlpack(t).flags.writeable


def test_a_tensor_that_requires_a_gradient_is_refused():
    w = nn.Parameter([1.0, 2.0])
    for t in (w, w * 2):
        with pytest.raises(BufferError, match=r"__dlpack__: the tensor \[2\] requires a gradient.*detach\(\)"):
            np.from_dlpack(t)
    shared = np.from_dlpack(w.detach())
    shared += 1
    assert w.tolist() == [2.0, 3.0]
    torch = pytest.importorskip("torch")
    with pytest.raises(BufferError, match="from_dlpack: Tensor refuses: Can't export tensors that require gradient"):
        pynn.from_dlpack(torch.zeros(2, requires_grad=True))


def test_the_arguments_of_the_standard():
    t = pynn.tensor([1.0, 2.0])
    assert t.__dlpack_device__() == (1, 0)
    assert '"dltensor"' in repr(t.__dlpack__())
    assert '"dltensor"' in repr(t.__dlpack__(max_version=(0, 8)))
    assert '"dltensor_versioned"' in repr(t.__dlpack__(max_version=(1, 0)))
    assert '"dltensor_versioned"' in repr(t.__dlpack__(max_version=(9, 0), dl_device=(1, 0), stream=None, copy=False))
    with pytest.raises(BufferError, match=r"__dlpack__: dl_device is \(2, 0\), pynn has \(1, 0\)"):
        t.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="__dlpack__: stream is 1, memory of a CPU needs None"):
        t.__dlpack__(stream=1)
    a = np.from_dlpack(t, copy=True)
    assert a.tolist() == [1.0, 2.0]
    assert not np.shares_memory(a, t.data)
    assert np.shares_memory(np.from_dlpack(t, device="cpu", copy=False), t.data)


def test_what_cannot_be_imported_says_why():
    with pytest.raises(TypeError, match="from_dlpack: list has no __dlpack__"):
        pynn.from_dlpack([1.0])
    with pytest.raises(ValueError, match="from_dlpack: device is 'cuda', needs 'cpu'"):
        pynn.from_dlpack(np.zeros(2), device="cuda")
    with pytest.raises(BufferError, match=r"from_dlpack: Producer is on DLPack device \(2, 0\), needs \(1, 0\)"):
        pynn.from_dlpack(Producer(np.zeros(2), device=(2, 0)))
    for dtype in (np.float16, np.complex64):
        with pytest.raises(TypeError, match=r"^from_dlpack: needs float32, float64, integers or bool"):
            pynn.from_dlpack(np.zeros(2, dtype))
    with pytest.raises(TypeError, match=r"^from_dlpack: copy must be True or False, got 'never'"):
        pynn.from_dlpack(np.zeros(2), copy="never")
    with pytest.raises(BufferError, match=r"needs a copy, got copy=False$"):
        pynn.from_dlpack(np.zeros((3, 2)).T, copy=np.False_)


def test_what_pytorch_has_and_pynn_has_not():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"from_dlpack: Tensor cannot be read: Unsupported dtype"):
        pynn.from_dlpack(torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(BufferError, match="from_dlpack: Tensor is on no device that DLPack knows"):
        pynn.from_dlpack(torch.zeros(2, device="meta"))
    with pytest.raises(BufferError, match="from_dlpack: Tensor refuses"):
        pynn.from_dlpack(torch.zeros(2, layout=torch.sparse_coo))


def test_values_of_a_captured_step_are_not_exported():
    def leak(x):
        np.from_dlpack(x * 2)

    with pytest.raises(pynn.CaptureError, match=r"a value \[2\] of a captured step is read, at .*test_dlpack"):
        pynn.capture(leak)(np.ones(2, np.float32))
