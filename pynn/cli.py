"""The command ``pynn``: train on MNIST, predict digits, draw them, tell about the installation."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np

import pynn

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2  # also argparse's
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default ``sys.argv[1:]``) and return its exit code.

    0 for success, 1 for a training that diverged, 2 for bad arguments or data (one line on standard error), 130 for
    Ctrl-C (`train` saves first), 141 where nobody reads the output any more, such as `| head`.
    """
    try:
        return _run(argv)
    except BrokenPipeError:
        _discard_output()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt as error:
        _complain("interrupted", error)
        return EXIT_INTERRUPTED
    except FloatingPointError as error:
        _complain(f"error: {error}", error)
        return EXIT_FAILED
    except (ValueError, OSError, ImportError, MemoryError) as error:
        _complain(f"error: {' '.join(str(error).split()) or 'out of memory'}", error)  # on one line
        _discard_output()
        return EXIT_BAD_INPUT


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            arguments.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of the command at hand
    except SystemExit:  # --help and --version have printed, too
        _flush_output()
        raise
    code: int = arguments.run(arguments)
    _flush_output()
    return code


def _flush_output() -> None:
    """Write what is buffered: at exit, an error of it would be a traceback."""
    if sys.stdout is not None:  # as it is in a process that was started with it closed
        sys.stdout.flush()


def _discard_output() -> None:
    """Throw away what standard output does not take, such as that of a full disk."""
    try:
        _flush_output()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _complain(text: str, error: BaseException) -> None:
    notes = "".join(getattr(error, "__notes__", ()))  # such as that the data are synthetic
    print(f"pynn: {notes}{text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pynn", description="Train small neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"pynn {pynn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model", description="Train a model on a data set.")
    datasets = train.add_subparsers(title="data sets", required=True, metavar="DATASET")
    mnist = datasets.add_parser(
        "mnist",
        help="handwritten digits",
        description="Train a model on MNIST; write metrics, weights and pictures into a run folder.",
    )
    mnist.add_argument("--model", choices=["mlp", "lenet", "cnn"], help="network (default: lenet)")
    mnist.add_argument("--epochs", type=_integer(1), metavar="N", help="passes over the data (default: the model's)")
    mnist.add_argument("--batch-size", type=_integer(1), metavar="N", help="images in a step (default: the model's)")
    mnist.add_argument("--lr", type=_positive, metavar="X", help="peak learning rate (default: the model's)")
    mnist.add_argument(
        "--seed", type=_integer(0, 2**64 - 1), metavar="N", help="of weights, order and dropout (default: 0)"
    )
    mnist.add_argument("--threads", type=_integer(1, 256), metavar="N", help="default: the processors available")
    mnist.add_argument(
        "--data-dir", type=_folder, metavar="D", help="folder of the IDX files (default: search, then download)"
    )
    mnist.add_argument(
        "--out",
        type=_folder,
        metavar="DIR",
        help="folder without the results of another run (default: the next free runs/mnist-MODEL-N)",
    )
    mnist.add_argument(
        "--val",
        type=_integer(0),
        metavar="N",
        help="hold out N training images, keep the best epoch (default: 0)",
    )
    mnist.add_argument(
        "--checkpoint-every",
        type=_integer(1),
        metavar="N",
        help="write a checkpoint after each N steps of an epoch, too (default: after epochs only)",
    )
    mnist.add_argument(
        "--resume", type=_folder, metavar="RUN", help="go on with the run in this folder, with its settings"
    )
    mnist.add_argument("--quiet", action="store_true", help="print errors only")
    mnist.set_defaults(run=_train_mnist, error=mnist.error)

    predict = commands.add_parser("predict", help="recognise digits", description="Print the digit in each image.")
    predict.add_argument("weights", metavar="WEIGHTS", help="weights file or run folder")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="picture (needs Pillow), IDX or .npy file")
    predict.set_defaults(run=_predict, error=predict.error)

    demo = commands.add_parser(
        "demo",
        help="draw a digit in the browser",
        description="Serve a page, to this computer only: draw a digit, and see what the network makes of it.",
    )
    demo.add_argument(
        "weights",
        metavar="WEIGHTS",
        nargs="?",
        help="weights file or run folder (default: the newest in runs/; if there is none, train one)",
    )
    demo.add_argument(
        "--port", type=_integer(0, 65535), default=8000, metavar="N", help="default: 8000; 0: any that is free"
    )
    demo.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    demo.set_defaults(run=_demo, error=demo.error)

    info = commands.add_parser("info", help="versions, instruction set, threads", description="Describe this pynn.")
    info.set_defaults(run=_info, error=info.error)
    return parser


def _integer(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return parse


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is not the name of a folder")
    return text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


# Imported late, so that `pynn --help` and `pynn info` do not wait for what they do not use.
def _train_mnist(arguments: argparse.Namespace) -> int:
    from pynn.train.mnist import Settings, resume_mnist, train_mnist

    chosen = {name: getattr(arguments, name) for name in ("model", "epochs", "batch_size", "lr", "seed", "val")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if arguments.resume is not None and (chosen or arguments.out is not None):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in (*chosen, *(["out"] if arguments.out else [])))
        raise ValueError(f"train mnist: --resume takes the settings of the run, leave out {names}")
    if arguments.threads is not None:
        pynn.set_num_threads(arguments.threads)
    options = {name: getattr(arguments, name) for name in ("data_dir", "quiet", "checkpoint_every")}
    if arguments.resume is not None:
        interrupted = resume_mnist(arguments.resume, **options)
    else:
        interrupted = train_mnist(Settings.of(**chosen), out=arguments.out, **options)
    return EXIT_INTERRUPTED if interrupted else 0


def _predict(arguments: argparse.Namespace) -> int:
    from pynn.images import read_digits
    from pynn.models import Classifier, weights_file
    from pynn.train.mnist import SYNTHETIC_PREFIX

    classifier = Classifier.load(weights_file("predict", arguments.weights))
    prefix = SYNTHETIC_PREFIX if classifier.is_synthetic else ""
    batches = [(path, read_digits(path)) for path in arguments.images]
    answers = [(path, classifier.probabilities(images)) for path, images in batches]  # all, before a line is printed
    for path, rows in answers:
        for i, row in enumerate(rows):
            name = path if len(rows) == 1 else f"{path}[{i}]"
            listed = "  ".join(f"{digit}:{p:.3f}" for digit, p in enumerate(row))
            print(f"{prefix}{name}: {int(np.argmax(row))}  probabilities {listed}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from pynn.demo.command import run

    return EXIT_INTERRUPTED if run(arguments.weights, arguments.port, browser=not arguments.no_browser) else 0


def _info(arguments: argparse.Namespace) -> int:
    for name, value in pynn.info().items():
        print(f"{name}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
    return 0
