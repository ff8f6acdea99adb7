"""Training steps of the working tree beside those of another revision of the repository, for reviewing a change.

    python benchmarks/against_base.py main
    python benchmarks/against_base.py HEAD~3 --filter lenet,conv --repeats 12

The revision is checked out and compiled in a temporary folder, which is removed at the end; the working tree must be
compiled in place (pip install -e ., or CMake with PYNN_INPLACE). One process cannot hold both, so each has one of its
own, and they take blocks of steps in turn. Both run the benchmarks of the working tree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import report
from report import Table, duration
from timing import summarize
from workloads import MAIN, NEIGHBOURS, SMALL, choose

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent

# What each of the two processes runs: a workload's name comes in, then one line for each block to take.
WORKER = """
import json, sys
import pynn, pynn.data
if not hasattr(pynn.data, "take"):  # an old revision
    pynn.data.take = lambda array, rows: array[rows]
from sides import make_data, pynn_side, row_batches
from timing import time_block
from workloads import MAIN, NEIGHBOURS, SMALL

folder, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
assert pynn.__path__[0].startswith(folder), f"{pynn.__path__[0]} is not in {folder}"
pynn.set_num_threads(threads)
for line in sys.stdin:
    if line.strip():
        workload = next(w for w in (*MAIN, *NEIGHBOURS, *SMALL) if w.name == line.strip())
        images, labels = make_data(workload, 0)
        pynn.seed(0)
        side = pynn_side(workload, images, labels)
        rows = row_batches(len(images), workload.batch, 0)
        losses = [side.step(next(rows)).item() for _ in range(5)]
        print(json.dumps(losses), flush=True)
    else:
        print(json.dumps(time_block(side.step, rows, seconds)), flush=True)
"""


def git(*arguments: str) -> str:
    """Run git in the repository and return what it prints."""
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, check=True, text=True, capture_output=True
    ).stdout.strip()


@contextmanager
def compiled(revision: str, jobs: int) -> Iterator[Path]:
    """Check a revision out and compile it in place, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, "base")
        git("worktree", "add", "--detach", str(tree), revision)
        try:
            build = ["cmake", "-S", str(tree), "-B", str(tree / "build"), "-DPYNN_INPLACE=ON"]
            build.append(f"-DPython_EXECUTABLE={sys.executable}")
            for command in (build, ["cmake", "--build", str(tree / "build"), "--target", "_core", "-j", str(jobs)]):
                done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                if done.returncode:
                    raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


class Worker:
    """A process with one of the two versions."""

    def __init__(self, tree: Path, threads: int, seconds: float) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(FOLDER)))}
        command = [sys.executable, "-c", WORKER, str(tree), str(threads), str(seconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=FOLDER
        )

    def ask(self, line: str) -> Any:
        """Send a line and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise SystemExit("against_base: a process ended too early, its error is above") from None
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("against_base: a process ended too early, its error is above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(name: str, workers: dict[str, Worker], repeats: int) -> dict[str, Any]:
    """Time one workload alternately; return its figures."""
    losses = {version: worker.ask(name) for version, worker in workers.items()}
    for worker in workers.values():
        worker.ask("")  # warm-up
    blocks: dict[str, list[float]] = {version: [] for version in workers}
    for _ in range(repeats):
        for version, worker in workers.items():
            blocks[version].append(worker.ask(""))
    result = summarize(blocks, base="tree")
    here, there = losses["tree"], losses["base"]
    difference = max(abs(a - b) / abs(b) for a, b in zip(here, there, strict=True))
    return {**result, "name": name, "loss_difference": difference}


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="what to compare with: a commit, a branch, a tag")
    parser.add_argument(
        "--filter", metavar="A,B", help="names of compare.py's workloads, or parts of them (default: all but the small)"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both (%(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="of the compiler (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="pairs of blocks (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few short blocks: shows that it runs, not how fast")
    parser.add_argument("--json", metavar="FILE", type=report.output_file, help="write the figures")
    args = parser.parse_args(argv)
    chosen = [*MAIN, *NEIGHBOURS] if args.filter is None else choose([*MAIN, *NEIGHBOURS, *SMALL], args.filter)
    if not chosen:
        parser.error(f"--filter {args.filter}: no workload has this in its name")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if not (REPOSITORY / "pynn" / f"_core{suffix}").exists():
        parser.error("the working tree is not compiled in place: pip install -e ., or CMake with PYNN_INPLACE")
    try:
        commit = git("rev-parse", "--verify", f"{args.revision}^{{commit}}")
    except subprocess.CalledProcessError:
        parser.error(f"{args.revision} is no revision of this repository")
    repeats, seconds = (2, 0.02) if args.quick else (args.repeats, 0.12)
    start = time.perf_counter()
    with compiled(commit, args.jobs) as tree:
        print(f"{commit[:10]} compiled in {time.perf_counter() - start:.0f} s")
        print(f"{report.machine()}; {args.threads} threads\n")
        workers = {"base": Worker(tree, args.threads, seconds), "tree": Worker(REPOSITORY, args.threads, seconds)}
        try:
            results = compare(chosen, workers, repeats)
        finally:
            for worker in workers.values():
                worker.close()
    if args.json:
        report.write_json(args.json, {"machine": report.machine(), "base": commit, "results": results})


def compare(chosen: list[Any], workers: dict[str, Worker], repeats: int) -> list[dict[str, Any]]:
    """Measure and print all workloads."""
    table = Table([("training step, median µs", 44), ("base", 8), ("tree", 8), ("base / tree", 22), ("losses", 8)])
    results = []
    for workload in chosen:
        result = measure(workload.name, workers, repeats)
        results.append(result)
        ratio, difference = result["ratios"]["base"], result["loss_difference"]
        low, high = ratio["quartiles"]
        cells = [workload.title, duration(result["us"]["base"]), duration(result["us"]["tree"])]
        cells.append(f"{ratio['median']:.2f} ({low:.2f} to {high:.2f})")
        table.line([*cells, f"{difference:.0e}" if difference else "same"])
    ratios = {result["name"]: result["ratios"]["base"]["median"] for result in results}
    worst = min(ratios, key=lambda name: ratios[name])
    print(f"\nbase / tree: lowest {ratios[worst]:.2f} ({worst}), median {statistics.median(ratios.values()):.2f}")
    return results


if __name__ == "__main__":
    main()
