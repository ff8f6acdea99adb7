"""Instruction sets, threads, fork and memory of the core, as a process sees them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import pynn
from pynn import _core

ROOT = Path(pynn.__file__).parents[1]  # `-c` imports from its folder first: from here, the pynn of this process


def run_python(
    code: str, cwd: Path = ROOT, arguments: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
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
        ("PYNN_NUM_THREADS", "many", "PYNN_NUM_THREADS is many, needs an integer from 1 to 256"),
        ("PYNN_NUM_THREADS", "0", "PYNN_NUM_THREADS is 0, needs an integer from 1 to 256"),
    ],
)
def test_wrong_environment_is_an_import_error_that_says_why(variable: str, value: str, message: str) -> None:
    result = run_python("import pynn", **{variable: value})
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(
    ("variable", "message"),
    [("PYNN_ISA", 'PYNN_ISA: "x" is not an instruction set of this machine; it has '), ("PYNN_NUM_THREADS", "is x")],
)
def test_the_command_says_on_one_line_what_is_wrong_with_the_environment(
    tmp_path: Path, script: bool, variable: str, message: str
) -> None:
    (tmp_path / "pynn").write_text("from pynn.cli import main\nraise SystemExit(main())\n")  # as pip writes it
    command = [str(tmp_path / "pynn")] if script else ["-m", "pynn"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), variable: "x"}  # `-m` imports from the folder at hand first
    done = subprocess.run(
        [sys.executable, *command, "info"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pynn: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_with_arguments_like_the_command_gets_the_exception() -> None:
    result = run_python("import pynn", arguments=["-m", "pynn"], PYNN_ISA="x")
    assert result.returncode == 1
    assert "ImportError: PYNN_ISA" in result.stderr


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
        for n in (0, -1, 257, 3000000000, -(2**31) - 1, 10**30):
            with pytest.raises(ValueError, match=rf"^set_num_threads: n is {n}, needs an integer from 1 to 256$"):
                pynn.set_num_threads(n)
        for n in (2.0, "2", None):
            with pytest.raises(TypeError, match=rf"^set_num_threads: n is {n!r}, needs an integer from 1 to 256$"):
                pynn.set_num_threads(n)
        assert pynn.num_threads() == 3
    finally:
        pynn.set_num_threads(before)


def test_environment_sets_threads() -> None:
    assert run_python("import pynn; print(pynn.num_threads())", PYNN_NUM_THREADS="3").stdout.strip() == "3"


@pytest.mark.parametrize(
    ("omp", "own", "threads"),
    [
        ("1", "", 1),
        ("1,4", "", 1),
        ("1", "3", 3),
        ("", "", None),
        ("many", "", None),
        ("0", "", None),
        ("999", "", None),
    ],
)
def test_share_of_the_cores_that_joblib_gives_to_a_process(omp: str, own: str, threads: int | None) -> None:
    code = "import pynn; print(pynn.num_threads(), pynn.info()['max_threads'])"
    given, cores = run_python(code, OMP_NUM_THREADS=omp, PYNN_NUM_THREADS=own).stdout.split()
    assert given == str(threads or cores)


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


TRAINING = """
import resource, sys
import numpy as np
import pynn
from pynn import _core, nn, optim

mlp = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
lenet = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)
cnn = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
)
model, shape, optimizer = {
    "mlp": (mlp, (784,), optim.SGD(mlp.parameters(), lr=0.01, momentum=0.9)),
    "lenet": (lenet, (1, 28, 28), optim.Adam(lenet.parameters())),
    "cnn": (cnn, (1, 28, 28), optim.Adam(cnn.parameters())),
}[sys.argv[1]]
pynn.set_num_threads(int(sys.argv[2]))
rng = np.random.default_rng(0)
images, labels = rng.normal(size=(64, *shape)).astype(np.float32), rng.integers(0, 10, 64)

def train(steps):
    for batch in rng.integers(0, 64, (steps, 16)):
        x, y = pynn.data.take(images, batch), pynn.data.take(labels, batch)
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()

train(20)
for _ in range(5):
    reserved = _core.arena_stats()["bytes_reserved"]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    train(40)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(_core.arena_stats()["bytes_reserved"] - reserved, faults)
"""


@pytest.mark.parametrize("network", ["mlp", "lenet", "cnn"])
@pytest.mark.parametrize("threads", [1, 2])
def test_steady_training_takes_no_memory_and_no_page_faults(network: str, threads: int) -> None:
    result = run_python(TRAINING, arguments=[network, str(threads)])
    assert result.returncode == 0, result.stderr
    rounds = [[int(n) for n in line.split()] for line in result.stdout.splitlines()]
    # The best of five rounds of 40 steps: on a busy machine, a thread may get its first task, and the scratch for it,
    # late. Memory that came anew in each step would show in all of them, with a fault for every 4 KB.
    assert min(growth for growth, _ in rounds) == 0
    assert min(faults for _, faults in rounds) <= 4  # the interpreter's own pools may grow by a page


RESTRICTED = """
import os
import numpy as np
import pynn

pynn.set_num_threads(2)
a = np.ones((256, 256), np.float32)

def threads():
    return [int(thread) for thread in os.listdir("/proc/self/task")]

def work():
    for _ in range(20):
        pynn.functional.matmul(a, a)
        sum(range(100000))  # long enough for the worker to fall asleep

work()
for core in sorted(os.sched_getaffinity(0))[:2]:
    for thread in threads():
        os.sched_setaffinity(thread, {core})
    work()
    print(all(os.sched_getaffinity(thread) == {core} for thread in threads()))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity masks")
def test_workers_stay_on_the_cores_that_a_running_process_is_restricted_to() -> None:
    result = run_python(RESTRICTED)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == {"True"}


FEWER = """
import os
import numpy as np
import pynn

def switches(thread):  # how often it gave up its core or lost it
    with open(f"/proc/self/task/{thread}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

def work():
    for _ in range(20):
        pynn.functional.matmul(a, a)
        sum(range(100000))  # long enough for a worker to fall asleep

a = np.ones((256, 256), np.float32)
others = set(os.listdir("/proc/self/task"))
pynn.set_num_threads(4)
work()
workers = sorted(set(os.listdir("/proc/self/task")) - others)

def unused():
    before = [switches(worker) for worker in workers]
    work()
    return sum(switches(worker) == count for worker, count in zip(workers, before, strict=True))

# In one of many rounds: on a busy machine, a worker comes late to where it is left alone.
pynn.set_num_threads(2)
print(len(workers), any(unused() == 2 for _ in range(100)))
pynn.set_num_threads(4)
print(any(unused() == 0 for _ in range(100)), len(os.listdir("/proc/self/task")) - len(others))
"""


def counts_switches() -> bool:
    status = Path("/proc/self/status")
    return status.exists() and "ctxt_switches" in status.read_text()


@pytest.mark.skipif(not counts_switches(), reason="the system does not tell how often threads ran")
def test_workers_beyond_the_number_of_threads_are_not_woken() -> None:
    result = run_python(FEWER)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["3 True", "True 3"]


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


def test_copy_rate_refuses_what_no_memory_holds() -> None:
    with pytest.raises(MemoryError, match=f"^copy_rate: no memory for two arrays of together {2**62} bytes"):
        _core.copy_rate(2**62)
    with pytest.raises(ValueError, match=r"^copy_rate: nbytes is 0, needs at least 1"):
        _core.copy_rate(0)
