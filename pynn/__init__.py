"""pynn: a small, fast, CPU-first neural-network training library."""

from pynn._version import __version__

__all__ = ["__version__"]
