"""The page of `pynn demo` as a person meets it: drawn on by mouse, finger and keyboard, in headless Chromium.

PYNN_SCREENSHOTS=FOLDER keeps pictures of the page.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import pytest
from demo_tools import serving

import pynn
from pynn import nn, optim
from pynn.data import MNIST_MEAN, MNIST_STD, DataLoader, normalize_images, synthetic_digits
from pynn.demo import Recognizer
from pynn.models import Classifier, lenet
from pynn.train import Trainer

api = pytest.importorskip("playwright.sync_api", reason="needs playwright and Chromium to open the page")
api.expect.set_options(timeout=30_000)  # ms until a test fails; a busy machine may take long to draw
BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
demo_page = importlib.import_module("demo_page")
sys.path.remove(BENCHMARKS)
pytestmark = pytest.mark.skipif(demo_page.CHROMIUM is None, reason="needs Chromium to open the page")

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def server():
    """The page of a network that has learned from synthetic digits."""
    images, labels = synthetic_digits(6000, seed=0)
    pynn.seed(0)
    model = lenet()
    loader = DataLoader(normalize_images(images), labels, batch_size=100, shuffle=True, seed=0)
    Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=3e-3), verbose=False).fit(loader, 3)
    ours = Classifier("lenet", model, MNIST_MEAN, MNIST_STD, "synthetic-digits", True)
    with serving(Recognizer(ours)) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright, playwright.chromium.launch(**demo_page.LAUNCH) as browser:
        yield browser


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the page; at the end there must have been no message on its console."""
    contexts, messages = [], []
    expected = ["Canvas2D: Multiple readback"]  # by the tests, which look at the ink

    def open_page(scheme="light", expect=(), **options):
        expected.extend(expect)
        context = browser.new_context(color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(server.url)
        api.expect(page.locator("#layers figure")).to_have_count(8)
        page.evaluate(demo_page.WATCH)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in messages if not text.startswith(tuple(expected))] == []


def draw(page, digit):
    for stroke in demo_page.STROKES[digit]:
        for i, point in enumerate(demo_page.positions(page, stroke)):
            page.mouse.move(*point)
            if i == 0:
                page.mouse.down()
        page.mouse.up()


def swipe(page, stroke):
    """Move a finger, by the protocol of Chromium's own tools: playwright only taps."""
    session = page.context.new_cdp_session(page)
    for i, (x, y) in enumerate(demo_page.positions(page, stroke)):
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def keep(page, name):
    folder = os.environ.get("PYNN_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def expect_digit(page, digit):
    api.expect(page.locator("#digit")).to_have_text(str(digit))
    api.expect(page.locator("#bars li.best .name")).to_have_text(str(digit))
    api.expect(page.locator("#said")).to_contain_text(f"This looks like {digit}: ")


def shares(page):
    return [int(text.removesuffix(" %")) for text in page.locator("#bars .share").all_inner_texts()]


def layers(page):
    """Return the pictures of all layers."""
    return page.locator("#layers canvas").evaluate_all("list => list.map((canvas) => canvas.toDataURL())")


def ink(page):
    """Return how many pixels of the paper have ink."""
    return page.locator("#pad").evaluate(
        """(pad) => pad.getContext("2d").getImageData(0, 0, pad.width, pad.height).data
             .filter((value, i) => i % 4 === 3 && value > 0).length"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_digits_drawn_by_mouse(open_page, scheme):
    page = open_page(scheme, **DESKTOP)
    api.expect(page.locator("#about")).to_have_text("lenet, 61,706 parameters, trained on synthetic digits")
    api.expect(page.locator("#notice")).to_be_visible()
    api.expect(page.locator("#digit")).to_have_text("\u2013")
    keep(page, f"desktop-{scheme}-empty")
    blank = layers(page)
    for digit in demo_page.STROKES:
        draw(page, digit)
        expect_digit(page, digit)
        assert abs(sum(shares(page)) - 100) <= 5  # ten rounded shares
        assert max(shares(page)) == shares(page)[digit]
        assert all(now != before for now, before in zip(layers(page), blank, strict=True))
        keep(page, f"desktop-{scheme}-{digit}")
        page.get_by_role("button", name="Clear").click()
        api.expect(page.locator("#digit")).to_have_text("\u2013")
        assert ink(page) == 0
        assert layers(page) == blank
        api.expect(page.locator("#said")).to_be_empty()
    latencies = sorted(page.evaluate("latencies"))
    assert latencies
    print(
        f"{len(latencies)} answers, ms after the stroke: median {latencies[len(latencies) // 2]}, last {latencies[-1]}"
    )


def test_the_answer_follows_the_pen(open_page):
    """While a 4 is not finished, it is already answered."""
    page = open_page(**DESKTOP)
    answers = page.locator("#latency")
    points = list(demo_page.positions(page, demo_page.STROKES[4][0]))
    page.mouse.move(*points[0])
    page.mouse.down()
    api.expect(answers).to_contain_text("ms after the stroke")
    before = layers(page)
    for point in points[1:]:
        page.mouse.move(*point)
    expect_digit(page, page.locator("#digit").inner_text())  # settled, with the pen still down
    assert layers(page) != before
    page.mouse.up()


def test_undo(open_page):
    page = open_page(**DESKTOP)
    undo = page.get_by_role("button", name="Undo")
    api.expect(undo).to_be_disabled()
    draw(page, 7)
    expect_digit(page, 7)
    seven, pictures = ink(page), layers(page)
    box = page.locator("#pad").bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.9 * box["height"])  # a dot
    api.expect(page.locator("#said")).not_to_be_empty()
    assert ink(page) > seven
    undo.click()
    expect_digit(page, 7)
    assert ink(page) == seven
    assert layers(page) == pictures
    undo.click()
    assert ink(page) == 0
    api.expect(undo).to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (320, 568), (844, 390)])
def test_a_finger_on_a_phone_draws_and_does_not_scroll(open_page, scheme, size):
    page = open_page(scheme, **PHONE | {"viewport": dict(zip(("width", "height"), size, strict=True))})
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    pad = page.locator("#pad").bounding_box()
    assert pad["y"] + pad["height"] <= size[1] or size[0] > size[1]  # all of the paper is on the screen
    swipe(page, demo_page.STROKES[7][0])
    expect_digit(page, 7)
    assert page.evaluate("scrollY") == 0
    keep(page, f"phone-{size[0]}-{scheme}")
    overlaps = page.evaluate(
        """() => {
          const boxes = [...document.querySelectorAll("h1, #pad, button, #digit, #bars li, #latency, figure, footer")]
            .map((element) => [element.outerHTML.slice(0, 40), element.getBoundingClientRect()]);
          return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
            .filter(([, q]) => p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom)
            .map(([b]) => `${a} and ${b}`));
        }"""
    )
    assert overlaps == []
    page.get_by_role("button", name="Clear").click()
    api.expect(page.locator("#digit")).to_have_text("\u2013")
    assert ink(page) == 0


def test_by_keyboard_alone(open_page):
    page = open_page(**DESKTOP)
    page.keyboard.press("Tab")
    pad = page.get_by_role("application", name="Drawing area")
    api.expect(pad).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('#pad')).outlineWidth") == "3px"
    api.expect(page.locator("#pen-state")).to_have_text("Pen up")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert ink(page) == 0  # the pen is up
    page.keyboard.press("Space")
    api.expect(page.locator("#pen-state")).to_have_text("Pen down")
    for _ in range(14):
        page.keyboard.press("ArrowRight")
    page.keyboard.down("ArrowLeft")  # held, so that the others go aslant
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    page.keyboard.up("ArrowLeft")
    for _ in range(9):
        page.keyboard.press("ArrowDown")
    keep(page, "keyboard")
    expect_digit(page, 7)
    page.keyboard.press("Space")
    api.expect(page.locator("#pen-state")).to_have_text("Pen up")
    drawn = ink(page)
    page.keyboard.press("ArrowUp")
    assert ink(page) == drawn
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    assert ink(page) == drawn  # the dot is gone
    for key in ("Delete", "Escape"):
        page.keyboard.press(key)
        assert ink(page) == 0
        page.keyboard.press("Space")
        assert ink(page) > 0
    page.keyboard.press("Tab")
    api.expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on Clear
    assert ink(page) == 0
    api.expect(pad).to_be_focused()
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(open_page, scheme):
    """WCAG 2.1, success criterion 1.4.3: 4.5 to 1."""
    page = open_page(scheme, **DESKTOP)
    draw(page, 7)
    expect_digit(page, 7)
    pairs = page.evaluate(
        """() => ["h1", "#about", "#notice", ".keys", "kbd", "#clear", "#digit", "#sure", ".share", ".best .share",
                  ".lead", "#latency", "figcaption span", "footer p"].map((selector) => {
          let element = document.querySelector(selector);
          const text = getComputedStyle(element).color;
          let ground = "rgba(0, 0, 0, 0)";
          for (; element && ground === "rgba(0, 0, 0, 0)"; element = element.parentElement) {
            ground = getComputedStyle(element).backgroundColor;
          }
          return [selector, text, ground];
        })"""
    )
    for selector, *colours in pairs:
        light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, colours)


def luminance(colour):
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_another_colour_scheme_redraws(open_page):
    page = open_page(**DESKTOP)
    draw(page, 7)
    expect_digit(page, 7)
    before, drawn = layers(page), ink(page)
    page.emulate_media(color_scheme="dark")
    api.expect(page.locator("body")).to_have_css("background-color", "rgb(15, 18, 22)")
    assert all(now != then for now, then in zip(layers(page), before, strict=True))
    assert ink(page) == drawn
    expect_digit(page, 7)


def test_it_says_when_the_server_does_not_answer(open_page):
    page = open_page(expect=["Failed to load resource: the server responded with a status of 400"], **DESKTOP)
    alert = page.get_by_role("alert")
    page.route("**/recognize", lambda route: route.fulfill(status=400, json={"error": "no reason"}))
    draw(page, 1)
    api.expect(alert).to_have_text("No answer: no reason.")
    page.unroute("**/recognize")
    draw(page, 1)
    expect_digit(page, 1)
    api.expect(alert).to_be_hidden()
