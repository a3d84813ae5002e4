"""Locate the data folders (`tasks`, `judges` and others) in a wheel or in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["tasks", "judges", "leaderboard", "recipes"]
_CHECKOUT = {"recipes": "training/recipes"}
_PACKAGE = Path(__file__).resolve().parent.parent


def bundled(kind: Kind) -> Path:
    """Return the folder that holds the bundled files of this kind.

    A wheel carries them under `medix_eval/_bundled`; an editable install reads the repository's
    own top-level folder, so an edit is live. The wheel is always unpacked on disk (`zip-safe` is
    not a thing for us: lm-eval reads task folders by path).
    """
    for folder in (_PACKAGE / "_bundled" / kind, _PACKAGE.parent / _CHECKOUT.get(kind, kind)):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no bundled {kind!r} folder beside {_PACKAGE}")
