"""The path by which task files name the class: it is in their text, so in their digests."""

from medix_eval.data.lm_task import MedixTask

__all__ = ["MedixTask"]
