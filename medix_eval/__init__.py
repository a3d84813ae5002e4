"""Evaluate medical language models so that the number is true."""

from medix_eval.storage.version import __version__

__all__ = ["__version__"]
