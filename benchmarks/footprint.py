"""What pynn costs beside its speed: size of the wheel, time of the import, memory of a training.

    python benchmarks/footprint.py [--wheel FILE]

Each figure is measured in fresh processes; the import time is the median difference to `import numpy`. The peaks of
training steps, of pynn and of PyTorch if it is installed, are of whole processes, imports and data included.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import accuracy


def import_milliseconds(module: str) -> float:
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return 1e3 * float(
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    )


def training_peak_megabytes() -> float:
    accuracy.run(seed=0, options=["--epochs", "1"])
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


STEPS = """
import resource, sys
import numpy as np
from sides import TorchSide, make_data, pynn_side, row_batches
from workloads import MAIN
workload = next(w for w in MAIN if w.name == sys.argv[2])
images, labels = make_data(workload, 0)
ours = pynn_side(workload, images, labels)
side = TorchSide(workload, images, labels, ours.model.state_dict()) if sys.argv[1] == "torch" else ours
rows = row_batches(len(images), workload.batch, 0)
for _ in range(30):
    side.step(next(rows))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def steps_peak_megabytes(library: str, workload: str) -> float:
    command = [sys.executable, "-c", STEPS, library, workload]
    folder = Path(__file__).parent
    return float(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def installed_megabytes() -> float:
    import pynn

    folder = Path(pynn.__file__).parent
    return sum(f.stat().st_size for f in folder.rglob("*") if f.suffix != ".pyc" and f.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="also print the size of this wheel")
    parser.add_argument("--repeats", type=int, default=15, help="processes per import (%(default)s)")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: needs at least 1")
    if arguments.wheel and not arguments.wheel.is_file():
        parser.error(f"--wheel {arguments.wheel}: no such file")
    if arguments.wheel:
        print(f"wheel                   {os.path.getsize(arguments.wheel) / 1e6:8.2f} MB")
    print(f"installed               {installed_megabytes():8.2f} MB")
    import_milliseconds("pynn")  # warms the file cache
    pairs = [(import_milliseconds("numpy"), import_milliseconds("pynn")) for _ in range(arguments.repeats)]
    print(f"import numpy            {statistics.median(n for n, _ in pairs):8.1f} ms")
    print(f"import pynn, on top     {statistics.median(p - n for n, p in pairs):8.1f} ms")
    print(f"pynn train mnist, peak  {training_peak_megabytes():8.0f} MB")
    libraries = ["pynn", "torch"] if importlib.util.find_spec("torch") else ["pynn"]
    for workload in ("mlp128", "lenet", "cnn"):
        peaks = ", ".join(f"{library} {steps_peak_megabytes(library, workload):.0f} MB" for library in libraries)
        print(f"{workload + ' steps, peak':<23} {peaks}")


if __name__ == "__main__":
    main()
