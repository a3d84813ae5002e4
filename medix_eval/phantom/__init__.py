"""The embedded benchmark: drawn images with known facts, and a tiny model that sees them."""

from __future__ import annotations

from pathlib import Path


def model_folder() -> Path:
    """Return the folder of the shipped Qwen3-VL checkpoint, as `from_pretrained` takes it."""
    return Path(__file__).resolve().parent / "model"
