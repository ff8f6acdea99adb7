"""Instruction sets, threads, fork and memory of the core, as a process sees them."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import pynn
from pynn import _core

ROOT = Path(pynn.__file__).parents[1]  # `-c` imports from its folder first: from here, the pynn of this process


def run_python(code: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", _core.info()["isas"])
def test_forced_instruction_set_is_the_one_that_runs(isa: str) -> None:
    result = run_python("import pynn; print(pynn.info()['isa'])", PYNN_ISA=isa)
    assert result.stdout.strip() == isa, result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PYNN_ISA", "avx1024", '"avx1024" is not an instruction set of this machine; it has baseline'),
        ("PYNN_NUM_THREADS", "many", '"many" is not a number'),
        ("PYNN_NUM_THREADS", "0", "number of threads 0 is not between 1 and"),
    ],
)
def test_wrong_environment_is_an_import_error_that_says_why(variable: str, value: str, message: str) -> None:
    result = run_python("import pynn", **{variable: value})
    assert result.returncode == 1
    assert message in result.stderr


def test_sources_without_the_core_say_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(Path(pynn.__file__).parent, tmp_path / "pynn", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    result = run_python("import pynn", cwd=tmp_path)
    assert result.returncode == 1
    assert "holds sources without a compiled core" in result.stderr


def test_thread_setting() -> None:
    before = pynn.num_threads()
    try:
        pynn.set_num_threads(3)
        assert pynn.num_threads() == 3
        with pytest.raises(ValueError, match="number of threads 0 is not between"):
            pynn.set_num_threads(0)
        assert pynn.num_threads() == 3
    finally:
        pynn.set_num_threads(before)


def test_environment_sets_threads() -> None:
    assert run_python("import pynn; print(pynn.num_threads())", PYNN_NUM_THREADS="3").stdout.strip() == "3"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes() -> None:
    code = """
import os, numpy as np
from pynn import _core
_core.set_num_threads(2)
a = np.ones((300, 300), np.float32)
_core.matmul(a, a)
child = os.fork()
if child == 0:
    os._exit(0 if _core.matmul(a, a)[0, 0] == 300 else 1)
status = os.waitpid(child, 0)[1]
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_concurrent_calls_are_correct() -> None:
    rng = np.random.default_rng(5)
    matrices = [rng.standard_normal((200, 200)).astype(np.float32) for _ in range(4)]
    expected = [_core.matmul(a, a) for a in matrices]
    failures: list[int] = []

    def work(i: int) -> None:
        failures.extend(i for _ in range(30) if not np.array_equal(_core.matmul(matrices[i], matrices[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_outputs_return_to_the_arena() -> None:
    a = np.ones((64, 64), np.float32)
    before = _core.arena_stats()
    y = _core.matmul(a, a)
    assert _core.arena_stats()["blocks_in_use"] == before["blocks_in_use"] + 1
    view = y[3:]
    del y
    assert view[0, 0] == 64, "a view keeps its block"
    del view
    assert _core.arena_stats()["blocks_in_use"] == before["blocks_in_use"]


def test_a_loop_takes_no_new_memory() -> None:
    a = np.ones((256, 256), np.float32)
    _core.matmul(a, a)
    reserved = _core.arena_stats()["bytes_reserved"]
    for _ in range(100):
        _core.matmul(a, a)
    assert _core.arena_stats()["bytes_reserved"] == reserved


def test_outputs_are_aligned_for_vectors() -> None:
    for n in (1, 7, 100):
        assert _core.matmul(np.ones((n, n), np.float32), np.ones((n, n), np.float32)).ctypes.data % 64 == 0


def test_empty_refuses_impossible_shapes() -> None:
    with pytest.raises(ValueError, match=r"empty: shape \[4611686018427387904, 4\] has more elements"):
        _core.empty([1 << 62, 4], np.float32)
    with pytest.raises(ValueError, match=r"empty: shape \[-1\] has a negative size"):
        _core.empty([-1], np.float32)
    with pytest.raises(TypeError, match="empty: dtype is int64, needs float32 or float64"):
        _core.empty([1], np.int64)
