"""How near training and inference of the networks of compare.py are to what this machine can do.

    python benchmarks/roofline.py [--mode inference | sequences] [--filter NAMES] [--threads 2] [--detail]

A call of the core needs at least the time of its multiply-adds at the measured peak, and of the bytes that it moves at
the measured rate of copying, as if all of its arrays were in the nearest cache that holds as many bytes; its floor is
the larger of the two. Bytes are moved when they are read, and twice when an array is written: a cache fetches a line
before it writes it back. A copy moves three bytes for two that it copies. Behind a max-pool, and a linear layer's ReLU,
only the live elements of the gradient count: that is what the result needs, not what vectors of sparse numbers can
reach. A convolution by Winograd's filtering counts 4 multiply-adds in place of 9, nothing for its transforms, and
sigmoid or tanh none.

The floor of a step is the sum over its calls; Python, the tape and the gaps between the calls are not in it. PyTorch,
and for inference ONNX Runtime, are timed in the same run, if installed: their time / the floor is a ratio that no
kernels, called one by one as here, can exceed on this machine.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import inference
import report
import sequences
from core_calls import Call, record, time_calls
from report import Table, duration
from sides import TorchSide, make_data, pynn_side, row_batches
from timing import alternate, summarize
from workloads import APPLICATIONS, MAIN, NEIGHBOURS, SEQUENCES, Application, Sequences, Workload, choose

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


def measure(
    case: Workload | Application | Sequences, limits: Limits, others: list[str], args: argparse.Namespace
) -> dict[str, Any]:
    """Count and time one workload or application; return its figures."""
    repeats, seconds = (2, 0.02) if args.quick else (7, 0.15)
    steps: dict[str, Callable[[Any], object]]
    batches: Any
    if isinstance(case, Application):
        steps = {**inference.make_steps(case, others, 0, args.threads)}
        targets, batches = case.targets, itertools.cycle(range(inference.BATCHES))
    elif isinstance(case, Sequences):
        steps = {name: side.step for name, side in sequences.make_sides(case, others, 0).items()}
        targets = {} if case.target is None else {"torch": case.target}
        batches = itertools.cycle(range(sequences.BATCHES))
    else:
        images, labels = make_data(case, seed=0)
        pynn.seed(0)
        ours = pynn_side(case, images, labels)
        steps = {"pynn": ours.step}
        if "torch" in others:
            steps["torch"] = TorchSide(case, images, labels, ours.model.state_dict()).step
        target = case.target_avx2 if pynn.info()["isa"] == "avx2" else case.target
        targets, batches = {} if target is None else {"torch": target}, row_batches(len(images), case.batch, seed=0)
    times = summarize(alternate(steps, batches, repeats, seconds))
    calls = record(lambda: steps["pynn"](next(batches)))
    call_us, step_us = time_calls(lambda: steps["pynn"](next(batches)), 4 * repeats)
    return {
        "name": case.name,
        "title": case.title,
        "targets": targets,
        "multiply_adds": sum(call.multiply_adds for call in calls),
        "moved": sum(call.moved for call in calls),
        "arithmetic_us": sum(map(limits.arithmetic, calls)),
        "floor_us": sum(map(limits.floor, calls)),
        "step_us_with_timers": step_us,
        "calls": [{**vars(c), "floor_us": limits.floor(c), "us": t} for c, t in zip(calls, call_us, strict=True)],
        **times,
    }


def cells(result: dict[str, Any], others: list[str]) -> list[str]:
    """Return a result's cells."""
    us = result["us"]["pynn"]
    row = [result["title"], f"{1e-6 * result['multiply_adds']:,.3g}", f"{1e-6 * result['moved']:,.3g}"]
    row += [duration(result["arithmetic_us"]), duration(result["floor_us"]), duration(us)]
    row += [duration(sum(call["us"] for call in result["calls"])), f"{100 * result['floor_us'] / us:.0f} %"]
    for side in others:
        theirs, ratio = result["us"][side], result["ratios"][side]["median"]
        row += [duration(theirs), f"{ratio:.2f}", f"{theirs / result['floor_us']:.2f}"]
        target = result["targets"].get(side)
        row.append("" if target is None else f"{target:g}" + " MISSED" * (ratio < target))
    return row


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
    parser.add_argument("--mode", choices=("train", "inference", "sequences"), default="train")
    parser.add_argument(
        "--filter", metavar="A,B", help="names of compare.py's cases (default: the six; or all of the mode)"
    )
    parser.add_argument("--threads", type=int, default=pynn.info()["max_threads"], help="of all sides (%(default)s)")
    parser.add_argument("--detail", action="store_true", help="every call of a step with its floor and its time")
    parser.add_argument("--quick", action="store_true", help="few short blocks: shows that it runs, not how fast")
    parser.add_argument("--json", metavar="FILE", type=report.output_file, help="write the figures")
    args = parser.parse_args(argv)
    main_cases: list[Any] = {"train": MAIN, "inference": APPLICATIONS, "sequences": SEQUENCES}[args.mode]
    known = [*main_cases, *NEIGHBOURS] if args.mode == "train" else main_cases
    chosen = main_cases if args.filter is None else choose(known, args.filter)
    if not chosen:
        parser.error(f"--filter {args.filter}: no case has this in its name")
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: needs at least 1")
    pynn.set_num_threads(args.threads)
    possible = ("torch", "onnxruntime") if args.mode == "inference" else ("torch",)
    others = [side for side in possible if report.missing(side) is None]
    if "torch" in others:
        import torch

        torch.set_num_threads(args.threads)
    figures = report.header(others)
    limits = Limits()
    print(f"Measured peak {1e-9 * limits.peak:.0f} GFLOP/s in float32\n")
    what = "inference" if args.mode == "inference" else "training step"
    columns = [(what, max(len(case.title) for case in chosen)), ("M mul-adds", 7), ("MB moved", 5)]
    columns += [("arithmetic, µs", 6), ("floor, µs", 6), ("pynn, µs", 7), ("its calls", 7), ("floor / pynn", 5)]
    for side in others:
        columns += [(f"{report.NAMES[side]}, µs", 7), ("/ pynn", 6), ("/ floor", 6), ("target", 10)]
    table = Table(columns)
    results = []
    for case in chosen:
        results.append(measure(case, limits, others, args))
        table.line(cells(results[-1], others))
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
