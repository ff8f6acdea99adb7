"""Draw a digit: a page on this computer that shows what a model of digits sees while one draws."""

from pynn.demo.recognizer import Recognizer
from pynn.demo.server import DemoServer

__all__ = ["DemoServer", "Recognizer"]
