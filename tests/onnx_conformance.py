"""ONNX's own test cases of operators, run by `pynn.onnx`.

    python tests/onnx_conformance.py [--verbose]

Prints how many cases pass, of those selected, of all, and why the others are not selected. A case is selected if `load`
accepts its model: that depends on operators, their versions and attributes, and dtypes, never on a result.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

import pynn
from pynn.onnx.loader import module_of, unsupported


@dataclass
class Report:
    """What became of the cases."""

    total: int = 0
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # names, and how they fail
    excluded: Counter[str] = field(default_factory=Counter)  # reasons

    @property
    def selected(self) -> int:
        return len(self.passed) + len(self.failed)


def all_cases() -> list[Any]:
    """Return the cases that onnx has for nodes, with the functions that stand for some of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the values are made with overflows and divisions by zero
        from onnx.backend.test.loader import load_model_tests

        return sorted(load_model_tests(kind="node"), key=lambda case: case.name)


def why_excluded(case: Any) -> str | None:
    """Return the reason that keeps a case out, or None."""
    problems = unsupported(case.model)
    if problems:
        what, _, reason = problems[0]
        return reason if what in ("input", "output", "array") else f"{what}: {reason}"
    if any(node.op_type == "Dropout" and len(node.input) > 2 for node in case.model.graph.node):
        ratio, training = (
            (np.asarray(x) for x in case.data_sets[0][0][1:3]) if len(case.data_sets[0][0]) > 2 else (1, 1)
        )
        if ratio and training:
            return "Dropout: expects the random numbers of one generator"
    return None


def as_array(value: Any) -> Any:
    """Return a value of a case as an array."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def check(case: Any) -> None:
    """Raise AssertionError, or what the model raises, unless it computes what the case expects."""
    model = module_of(case.model)
    for inputs, expected in case.data_sets:
        with pynn.no_grad():
            results = model(*map(as_array, inputs))
        results = results if isinstance(results, tuple) else (results,)
        assert len(results) == len(expected), f"{len(results)} outputs, expected {len(expected)}"
        for got, value in zip(results, map(as_array, expected), strict=True):
            assert got.dtype == value.dtype, f"got {got.dtype}, expected {value.dtype}"
            assert got.shape == value.shape, f"got {got.shape}, expected {value.shape}"
            np.testing.assert_allclose(got.data, value, rtol=case.rtol, atol=case.atol)


def run(cases: list[Any]) -> Report:
    """Run the cases that are selected."""
    report = Report(len(cases))
    for case in cases:
        reason = why_excluded(case)
        if reason is not None:
            report.excluded[reason] += 1
            continue
        try:
            check(case)
        except Exception:  # whatever it is, it is a failure of this case
            report.failed[case.name] = traceback.format_exc(limit=-2)
        else:
            report.passed.append(case.name)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--verbose", action="store_true", help="name the cases that pass, too")
    verbose = parser.parse_args().verbose
    report = run(all_cases())
    if verbose:
        print(*report.passed, sep="\n")
    for name, error in report.failed.items():
        print(f"FAILED {name}\n{error}")
    print(f"{sum(report.excluded.values())} cases are not selected:")
    for reason, count in sorted(report.excluded.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"{count:5}  {reason}")
    print(f"{len(report.passed)} passed / {report.selected} selected / {report.total} total")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
