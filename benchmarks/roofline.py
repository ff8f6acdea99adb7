"""How near a training step of each of the six networks is to what this machine can do.

    python benchmarks/roofline.py [--filter NAMES] [--threads 2] [--detail]

A call of the core needs at least the time of its multiply-adds at the measured peak, and of the bytes that it moves at
the measured rate of copying, as if all of its arrays were in the nearest cache that holds as many bytes; its floor is
the larger of the two. Bytes are moved when they are read, and twice when an array is written: a cache fetches a line
before it writes it back. A copy moves three bytes for two that it copies. Behind a max-pool only the live elements of
the gradient count: that is what the result needs, not what vectors of sparse numbers can reach.

The floor of a step is the sum over its calls; Python, the tape and the gaps between the calls are not in it. With
PyTorch installed, its step is timed in the same run: its time / the floor is a ratio that no kernels, called one by one
as here, can exceed on this machine.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import report
from core_calls import Call, record, time_calls
from report import Table, duration
from sides import TorchSide, make_data, pynn_side, row_batches
from timing import alternate, summarize
from workloads import MAIN, NEIGHBOURS, Workload, choose

import pynn

LEAST_BYTES, MOST_BYTES = 1 << 14, 1 << 27  # of working sets whose copy rates are told apart


class Limits:
    """The measured limits of this machine, with the threads in use."""

    def __init__(self) -> None:
        self.peak = pynn.debug.peak_flops()
        self.copy_rates: dict[int, float] = {}

    def copy_rate(self, nbytes: int) -> float:
        """Return bytes per second, for the power of two from nbytes on."""
        size = LEAST_BYTES
        while size < min(nbytes, MOST_BYTES):
            size *= 2
        if size not in self.copy_rates:
            self.copy_rates[size] = pynn.debug.copy_rate(size)
        return self.copy_rates[size]

    def arithmetic(self, call: Call) -> float:
        """Return the least µs of a call's multiply-adds."""
        return 2e6 * call.multiply_adds / self.peak

    def floor(self, call: Call) -> float:
        """Return the least µs of a call."""
        return max(self.arithmetic(call), 1e6 * call.moved / (1.5 * self.copy_rate(call.nbytes)))


def measure(workload: Workload, limits: Limits, with_torch: bool, repeats: int, seconds: float) -> dict[str, Any]:
    """Count and time one workload; return its figures."""
    images, labels = make_data(workload, seed=0)
    pynn.seed(0)
    ours = pynn_side(workload, images, labels)
    steps = {"pynn": ours.step}
    if with_torch:
        steps["torch"] = TorchSide(workload, images, labels, ours.model.state_dict()).step
    rows = row_batches(len(images), workload.batch, seed=0)
    times = summarize(alternate(steps, rows, repeats, seconds))
    calls = record(lambda: ours.step(next(rows)))
    call_us, step_us = time_calls(lambda: ours.step(next(rows)), 4 * repeats)
    return {
        "name": workload.name,
        "title": workload.title,
        "multiply_adds": sum(call.multiply_adds for call in calls),
        "moved": sum(call.moved for call in calls),
        "arithmetic_us": sum(map(limits.arithmetic, calls)),
        "floor_us": sum(map(limits.floor, calls)),
        "step_us_with_timers": step_us,
        "calls": [{**vars(c), "floor_us": limits.floor(c), "us": t} for c, t in zip(calls, call_us, strict=True)],
        **times,
    }


def print_detail(result: dict[str, Any]) -> None:
    """Print the calls of a step."""
    print(f"\n{result['title']}: the calls of a step")
    columns = [("call", 30), ("shape", 20), ("M mul-adds", 6), ("MB moved", 7), ("floor, µs", 7), ("µs", 7)]
    table = Table([*columns, ("floor / µs", 5)])
    for call in result["calls"]:
        cells = [call["name"], call["shapes"], f"{1e-6 * call['multiply_adds']:.2f}", f"{1e-6 * call['moved']:.2f}"]
        share = f"{100 * call['floor_us'] / call['us']:.0f} %"
        table.line([*cells, duration(call["floor_us"]), duration(call["us"]), share])
    rest = result["step_us_with_timers"] - sum(call["us"] for call in result["calls"])
    table.line(["Python, tape and these timers", "", "", "", "", duration(rest), ""])


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", metavar="A,B", help="names of compare.py's workloads (default: the six)")
    parser.add_argument("--threads", type=int, default=pynn.info()["max_threads"], help="of both (%(default)s)")
    parser.add_argument("--detail", action="store_true", help="every call of a step with its floor and its time")
    parser.add_argument("--quick", action="store_true", help="few short blocks: shows that it runs, not how fast")
    parser.add_argument("--json", metavar="FILE", type=report.output_file, help="write the figures")
    args = parser.parse_args(argv)
    chosen = MAIN if args.filter is None else choose([*MAIN, *NEIGHBOURS], args.filter)
    if not chosen:
        parser.error(f"--filter {args.filter}: no workload has this in its name")
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: needs at least 1")
    pynn.set_num_threads(args.threads)
    with_torch = importlib.util.find_spec("torch") is not None
    if with_torch:
        import torch

        torch.set_num_threads(args.threads)
    figures = report.header(["torch"] if with_torch else [])
    limits = Limits()
    print(f"Measured peak {1e-9 * limits.peak:.0f} GFLOP/s in float32\n")
    columns = [("training step", 36), ("M mul-adds", 7), ("MB moved", 5), ("arithmetic, µs", 6), ("floor, µs", 6)]
    columns += [("pynn, µs", 7), ("floor / pynn", 5)]
    if with_torch:
        columns += [("PyTorch, µs", 7), ("/ pynn", 6), ("/ floor", 6), ("target", 5)]
    table = Table(columns)
    repeats, seconds = (2, 0.02) if args.quick else (7, 0.15)
    results = []
    for workload in chosen:
        result = measure(workload, limits, with_torch, repeats, seconds)
        results.append(result)
        us = result["us"]["pynn"]
        cells = [workload.title, f"{1e-6 * result['multiply_adds']:,.0f}", f"{1e-6 * result['moved']:,.1f}"]
        cells += [duration(result["arithmetic_us"]), duration(result["floor_us"]), duration(us)]
        cells.append(f"{100 * result['floor_us'] / us:.0f} %")
        if with_torch:
            theirs, ratio = result["us"]["torch"], result["ratios"]["torch"]["median"]
            target = workload.target_avx2 if figures["isa"] == "avx2" else workload.target
            cells += [duration(theirs), f"{ratio:.2f}", f"{theirs / result['floor_us']:.2f}"]
            cells.append("" if target is None else f"{target:g}")
        table.line(cells)
    rates = ", ".join(f"{1e-9 * rate:.0f} for {size >> 10:,} KiB" for size, rate in sorted(limits.copy_rates.items()))
    print(f"\nMeasured copy rates in GB/s, read and written: {rates}")
    if args.detail:
        for result in results:
            print_detail(result)
    if args.json:
        rates_by_size = {str(size): rate for size, rate in sorted(limits.copy_rates.items())}
        report.write_json(
            args.json, {**figures, "peak_flops": limits.peak, "copy_rates": rates_by_size, "results": results}
        )


if __name__ == "__main__":
    main()
