"""How long the page of `pynn demo` waits for the answer to a stroke.

    python benchmarks/demo.py [--models mlp,lenet,cnn]

Three figures for each model, in ms: the answer itself (centring, network, encoding); a question over HTTP on this
computer; and, where playwright and Chromium are installed, from the stroke to the changed page while a hand draws,
50 moves a second. The weights are random, and no part of the work depends on them.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from demo_page import CHROMIUM, LAUNCH, STROKES, WATCH, positions

import pynn
from pynn.data import synthetic_digits
from pynn.demo import Recognizer
from pynn.models import MODELS, Classifier, build

PACE_S = 0.02


def drawings() -> list[bytes]:
    return [np.kron(image, np.ones((5, 5), np.uint8)).tobytes() for image in synthetic_digits(20, seed=0)[0]]


def times_of_answers(recognizer: Recognizer, repeats: int) -> list[float]:
    times = []
    for drawing in drawings() * repeats:
        start = time.perf_counter()
        recognizer.answer(drawing)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def times_over_http(port: int, repeats: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for drawing in drawings() * repeats:
        start = time.perf_counter()
        connection.request("POST", "/recognize", drawing, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        response.read()
        times.append(1e3 * (time.perf_counter() - start))
        assert response.status == 200
    connection.close()
    return times


def times_in_browser(url: str, repeats: int) -> list[float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(**LAUNCH) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_selector("#layers figure")
        page.evaluate(WATCH)
        first, *others = positions(page, STROKES[3][0])
        for _ in range(repeats):
            page.mouse.move(*first)
            page.mouse.down()
            for position in others:
                time.sleep(PACE_S)
                page.mouse.move(*position)
            page.mouse.up()
            page.get_by_role("button", name="Clear").click()
        times: list[float] = page.evaluate("latencies")
    return times


def line(what: str, times: list[float]) -> str:
    parts = statistics.quantiles(times, n=20)
    return f"{what:<24} {len(times):5d} {statistics.median(times):9.2f} {parts[-1]:9.2f} {max(times):9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="mlp,lenet,cnn", help="separated by commas (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of 20 questions, and of a drawn 3 (%(default)s)")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    if not set(names) <= MODELS.keys() or arguments.repeats < 1:
        parser.error(f"needs models out of {', '.join(MODELS)}, and at least 1 repeat")
    with_browser = CHROMIUM is not None and importlib.util.find_spec("playwright") is not None
    print(f"{'ms':<24} {'n':>5} {'median':>9} {'95 %':>9} {'most':>9}")
    for name in names:
        pynn.seed(0)
        classifier = Classifier(name, build(name), 0.13, 0.31, "nothing", False)
        print(line(f"{name}: answer", times_of_answers(Recognizer(classifier), arguments.repeats)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.npz")
            classifier.save(path)
            command = [sys.executable, "-m", "pynn", "demo", str(path), "--port", "0", "--no-browser"]
            # A process of its own, as a person has it.
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    server.stdout.readline()
                    url = re.search(r"http://\S+", server.stdout.readline())[0]
                    print(line(f"{name}: over HTTP", times_over_http(int(url.split(":")[2][:-1]), arguments.repeats)))
                    if with_browser:
                        print(line(f"{name}: in Chromium", times_in_browser(url, arguments.repeats)), flush=True)
                finally:
                    server.terminate()
    if not with_browser:
        print("not in a browser: needs playwright and Chromium")


if __name__ == "__main__":
    main()
