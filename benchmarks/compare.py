"""Time pynn beside PyTorch and others, in one run, alternately, on the same numbers.

    python benchmarks/compare.py                          # training steps of six networks, two minutes
    python benchmarks/compare.py --set all --vs torch,jax,numpy --json all.json --plot all.png
    python benchmarks/compare.py --lr 0                   # networks stay as they are initialised: half of a ReLU is 0
    python benchmarks/compare.py --mode captured          # training steps under pynn.capture, beside compilers
    python benchmarks/compare.py --mode inference         # batches 1 and 256, beside PyTorch and ONNX Runtime
    python benchmarks/compare.py --mode captured-inference
    python benchmarks/compare.py --mode attention         # attention forward and backward, a GPT's training step
    python benchmarks/compare.py --mode sequences         # training steps of recurrent networks
    python benchmarks/compare.py --mode examples          # captured training steps of the examples
    python benchmarks/compare.py --mode sklearn           # MLPClassifier beside scikit-learn's, to the same accuracy
    python benchmarks/compare.py --mode gemm              # matrix products, and the share of the measured peak
    PYNN_ISA=avx2 python benchmarks/compare.py            # pynn held to AVX2

Before anything is timed, all libraries must agree on the results. README.md beside this file explains the method.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from typing import Any

import attention
import captured
import estimators
import example_steps
import inference
import products
import report
import sequences
import training
from example_programs import EXAMPLES
from report import NAMES, Table, duration, ratio_cell
from workloads import (
    APPLICATIONS,
    ATTENTION,
    CAPTURE_TARGET,
    CAPTURED,
    CLASSIFIERS,
    LOWEST_TARGET,
    MAIN,
    MEDIAN_TARGET,
    NEIGHBOURS,
    PRODUCTS,
    SEQUENCES,
    SMALL,
    choose,
)

import pynn

COMPARED = ("eager", "torch", "compile", "jax")
APPLIED = ("eager", "torch", "onnxruntime")
MODES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "train": ("training step, median µs", ("torch", "jax", "numpy"), ("torch",)),  # what, possible sides, default ones
    "captured": ("captured training step, median µs", COMPARED, COMPARED),
    "inference": ("inference of a batch, median µs", ("torch", "onnxruntime"), ("torch", "onnxruntime")),
    "captured-inference": ("captured inference of a batch, median µs", APPLIED, APPLIED),
    "attention": ("attention and a GPT's training step, median µs", ("torch",), ("torch",)),
    "sequences": ("training step of a recurrent network, median µs", ("torch",), ("torch",)),
    "examples": ("captured training step of an example, median µs", ("eager", "torch"), ("eager", "torch")),
    "sklearn": ("MLPClassifier trained to 97 % of MNIST's test set, median µs", ("sklearn",), ("sklearn",)),
    "gemm": ("product m x n x k, median µs", ("torch", "numpy"), ("torch",)),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the checked arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, default="train")
    parser.add_argument(
        "--vs",
        metavar="A,B",
        help="; ".join(f"{mode}: {', '.join(possible)}" for mode, (_, possible, _) in MODES.items()),
    )
    parser.add_argument("--set", choices=("main", "neighbours", "all"), default="main", help="training: %(default)s")
    parser.add_argument("--filter", metavar="A,B", help="names of cases, or parts of them, from all sets")
    parser.add_argument("--threads", type=int, default=pynn.info()["max_threads"], help="of all sides (%(default)s)")
    parser.add_argument("--repeats", type=int, help="blocks of each side (15; neighbours 9; sklearn: trainings, 5)")
    parser.add_argument("--lr", type=float, help="training: in place of each case's own")
    parser.add_argument("--quick", action="store_true", help="few short blocks: shows that it runs, not how fast")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and order (%(default)s)")
    parser.add_argument(
        "--json", metavar="FILE", type=report.output_file, help="write the figures, with the time of every block"
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=report.output_file, help="draw the ratios: .png or .svg (needs matplotlib)"
    )
    args = parser.parse_args(argv)
    _, possible, default = MODES[args.mode]
    args.vs = list(default) if args.vs is None else list(dict.fromkeys(filter(None, args.vs.split(","))))
    unknown = [side for side in args.vs if side not in possible]
    if unknown:
        parser.error(f"--vs {unknown[0]}: --mode {args.mode} compares with {', '.join(possible)}")
    if args.repeats is not None and args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: needs at least 1")
    if args.lr is not None and args.mode not in ("train", "captured"):
        parser.error(f"--lr {args.lr}: --mode {args.mode} has no such option")
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: needs at least 1")
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot: needs matplotlib: pip install 'pynn-cpu[bench]'")
    args.cases = cases(args)
    if not args.cases:
        parser.error(f"--filter {args.filter}: no case has this in its name")
    return args


def cases(args: argparse.Namespace) -> list[Any]:
    """Return the workloads that the arguments ask for."""
    lists: dict[str, list[Any]] = {
        "inference": APPLICATIONS,
        "captured-inference": APPLICATIONS,
        "attention": ATTENTION,
        "sequences": SEQUENCES,
        "examples": EXAMPLES,
        "sklearn": CLASSIFIERS,
        "gemm": PRODUCTS,
    }
    if args.mode in lists:
        return lists[args.mode] if args.filter is None else choose(lists[args.mode], args.filter)
    sets = {"main": MAIN, "neighbours": NEIGHBOURS, "all": [*MAIN, *NEIGHBOURS]}
    workloads = CAPTURED if args.mode == "captured" else sets[args.set]
    if args.filter is not None:
        workloads = choose([*MAIN, *NEIGHBOURS, *SMALL], args.filter)
    return workloads if args.lr is None else [replace(workload, lr=args.lr) for workload in workloads]


def set_threads(sides: list[str], threads: int) -> None:
    """Give every side its number of threads, before it computes anything."""
    pynn.set_num_threads(threads)
    if "torch" in sides or "compile" in sides:
        import torch

        torch.set_num_threads(threads)
    if "sklearn" in sides:
        import sklearn.neural_network  # noqa: F401 - loads the BLAS
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if "jax" in sides:
        import jax_side

        jax_side.start(threads)


def left_out(side: str) -> str | None:
    """Return why a side cannot run here, if it cannot."""
    if (package := report.missing(side)) is not None:
        return f"{package} is not installed"
    return captured.compiler_problem() if side == "compile" else None


def targets(case: Any, mode: str, isa: str) -> dict[str, float]:
    """Return the ratios that a case should reach, by the other side's name."""
    if mode in ("inference", "captured-inference", "captured"):
        wanted = captured.targets(case.name) if mode == "captured" else dict(case.targets)
        return wanted if isa in ("avx512", "amx") else {}
    if mode == "sklearn":
        return {"sklearn": case.target}
    target = case.target_avx2 if mode == "train" and isa == "avx2" else case.target
    return {} if target is None else {"torch": target}


def measure(case: Any, args: argparse.Namespace, sides: list[str]) -> dict[str, Any]:
    """Check and time one case."""
    repeats, seconds = args.repeats or (9 if case in NEIGHBOURS else 15), 0.12 if case in NEIGHBOURS else 0.25
    if args.quick:
        repeats, seconds = args.repeats or 2, 0.02
    if args.mode in ("inference", "captured-inference"):
        captures = args.mode == "captured-inference"
        return inference.measure(case, sides, repeats, seconds, args.seed, args.threads, captures)
    if args.mode == "sklearn":
        most_epochs = 1 if args.quick else estimators.MOST_EPOCHS
        return estimators.measure(case, sides, args.repeats or (1 if args.quick else 5), args.seed, most_epochs)
    modules = {
        "train": training,
        "captured": captured,
        "attention": attention,
        "sequences": sequences,
        "examples": example_steps,
        "gemm": products,
    }
    result: dict[str, Any] = modules[args.mode].measure(case, sides, repeats, seconds, args.seed)
    return result


def row(result: dict[str, Any], sides: list[str]) -> list[str]:
    """Return a result's cells."""
    cells = [result["title"]]
    for side in ["pynn", *sides]:
        cells.append(duration(result["us"][side]) if side in result["us"] else "")
        if "shares" in result:
            cells += [f"{1e-3 * result['flops'] / result['us'][side]:.0f}", f"{100 * result['shares'][side]:.0f}"]
        if side != "pynn":
            cells.append(ratio_cell(result, side, result["targets"].get(side)))
    if "runs" in result:
        cells += [estimators.cell(result, side) for side in ("pynn", *sides)]
    if "capture_steps" in result:
        cells.append(f"{result['capture_steps']:.1f}{'' if result['capture_steps'] <= CAPTURE_TARGET else ' MISSED'}")
    return cells


def print_summary(results: list[dict[str, Any]], sides: list[str], tolerated: str) -> None:
    """Print the lowest and the median ratio, and how well the libraries agreed."""
    neighbours = {workload.name for workload in NEIGHBOURS}
    for side in sides:
        for group in (False, True):
            chosen = [r for r in results if (r["name"] in neighbours) == group and side in r["ratios"]]
            if chosen:
                wanted = f"; targets {LOWEST_TARGET:g} and {MEDIAN_TARGET:g}" if group and side == "torch" else ""
                print(("neighbours: " if group else "") + report.summary(chosen, side) + wanted)
    differences = [result[tolerated] for result in results if tolerated in result]
    if sides and differences:
        print(f"Largest relative {tolerated.replace('_', ' ')}: {max(differences):.1e}")


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    args = parse(argv)
    what = MODES[args.mode][0]
    reasons = {side: left_out(side) for side in args.vs}
    sides = [side for side in args.vs if reasons[side] is None]
    set_threads(sides, args.threads)
    figures: dict[str, Any] = {"what": what, "sides": ["pynn", *sides], **report.header(sides)}
    for side in args.vs:
        if side not in sides:
            print(f"{NAMES[side]} is left out: {reasons[side]}")
    if "numpy" in sides:
        print("NumPy's BLAS takes its own number of threads (OPENBLAS_NUM_THREADS); it is compared on MLPs only")
    rates = [("GFLOP/s", 7), ("% peak", 6)] if args.mode == "gemm" else []
    columns = [(what, max(len(getattr(case, "title", case.name)) for case in args.cases)), ("pynn", 7), *rates]
    for side in sides:
        wide = any(side in targets(case, args.mode, figures["isa"]) for case in args.cases)
        columns += [(NAMES[side], 7), *rates, (f"{NAMES[side]} / pynn", 40 if wide else 22)]
    if args.mode == "captured":
        columns.append((f"first call, eager steps (at most {CAPTURE_TARGET})", 10))
    if args.mode == "sklearn":
        estimators.data()
        columns += [(f"{NAMES[side]}: accuracy in epochs", 14) for side in ("pynn", *sides)]
    print()
    table = Table(columns)
    figures["results"] = []
    for case in args.cases:
        result = {"name": case.name, "title": getattr(case, "title", case.name)}
        result["targets"] = targets(case, args.mode, figures["isa"])
        result |= measure(case, args, sides)
        if args.mode == "captured":
            captured.keep_faster(result)
        figures["results"].append(result)
        table.line(row(result, sides))
    print()
    if args.mode == "gemm":
        peak = max(result["peak_flops"] for result in figures["results"])
        print(f"Measured peak: {1e-9 * peak:.0f} GFLOP/s in float32 with {args.threads} threads")
        for case, result in zip(args.cases, figures["results"], strict=True):
            if case.target_share is not None:
                share, wanted = result["shares"]["pynn"], case.target_share
                print(f"{case.name}: {100 * share:.0f} % of the peak, target {100 * wanted:.0f} %")
    if args.mode == "captured":
        figures["empty_us"] = captured.empty_steps(2 if args.quick else 15)
        figures["operation_ns"] = captured.further_operation(2 if args.quick else 15)
    print_summary(figures["results"], sides, "output_difference" if "inference" in args.mode else "loss_difference")
    if args.json:
        report.write_json(args.json, figures)
    if args.plot:
        report.plot(args.plot, figures)


if __name__ == "__main__":
    main()
