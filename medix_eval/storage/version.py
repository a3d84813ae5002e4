"""The version of the package, which run folders, reports and digests carry."""

__version__ = "0.2.0"
