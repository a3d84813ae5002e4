"""Evaluate medical language models so that the number is true."""

__version__ = "0.1.0"
