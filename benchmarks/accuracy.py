"""Test accuracy of `pynn train mnist` over several seeds, each in a process of its own.

python benchmarks/accuracy.py [--seeds 5] [--model lenet] [-- other options of `pynn train mnist`]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run(seed: int, options: list[str]) -> tuple[dict[str, Any], float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-P",
            "-m",
            "pynn",
            "train",
            "mnist",
            "--quiet",
            "--seed",
            str(seed),
            "--out",
            f"{folder}/run",
        ]
        start = time.perf_counter()
        if code := subprocess.run([*command, *options]).returncode:
            sys.exit(code)  # the command has said why
        return json.loads(Path(folder, "run", "metrics.json").read_text()), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Other options go to `pynn train mnist`."
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings (%(default)s)")
    arguments, options = parser.parse_known_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: needs at least 1")
    accuracies = []
    for seed in range(arguments.seeds):
        metrics, seconds = run(seed, [o for o in options if o != "--"])
        accuracies.append(metrics["final_test_accuracy"])
        print(
            f"{metrics['dataset']} {metrics['model']} seed {seed}: test accuracy {100 * accuracies[-1]:.2f} %, "
            f"{metrics['epochs']} epochs, {seconds:.1f} s from process start",
            flush=True,
        )
    deviation = f", standard deviation {100 * statistics.stdev(accuracies):.2f} %" if len(accuracies) > 1 else ""
    print(f"lowest {100 * min(accuracies):.2f} %, mean {100 * statistics.mean(accuracies):.2f} %{deviation}")


if __name__ == "__main__":
    main()
