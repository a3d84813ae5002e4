"""Names that people share: of a path on somebody's machine its last part, and no folder above."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

from medix_eval.storage.digests import digest

_PATH = re.compile(r"(?<![^\s=,\"'(\[{])/[^\s,\"')\]}]+")
"""An absolute path within a text, such as the value of a flag."""


def shown_name(name: str) -> str:
    """Return how a model is shown: of a path on somebody's machine the last part.

    >>> shown_name("/data/step-500"), shown_name("MBZUAI/MediX-R1-8B")
    ('step-500', 'MBZUAI/MediX-R1-8B')
    """
    paths = (kind(name) for kind in (PurePosixPath, PureWindowsPath))
    return next((path.name for path in paths if path.is_absolute() and path.name), name)


ShownName = Annotated[str, AfterValidator(shown_name)]


def marked_name(name: str) -> str:
    """Return a name; of a path the last part and what tells it from others that end so.

    >>> marked_name("/data/step-500"), marked_name("qwen3")
    ('step-500 (c9148643)', 'qwen3')
    """
    shown = shown_name(name)
    return name if shown == name else f"{shown} ({digest(name)[:8]})"


def without_folders(text: str, name: Callable[[str], str] = shown_name) -> str:
    """Return a text with the name of each absolute path in it in place of the path.

    >>> without_folders("prompt.template=/data/plain.jinja")
    'prompt.template=plain.jinja'
    """
    return _PATH.sub(lambda found: name(found[0]), text)
