"""One self-contained page: templates with escaping on, and a policy that lets nothing else in.

The page's own style and script are allowed by their hash. So what a model wrote could not run even
if it got out of its place, and nothing is ever asked of the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from medix_eval.storage.bundled import bundled

_PAGES = Path(__file__).parent / "pages"
_DATA = "<!--blocks-->"
"""Where the blocks go; text of a model cannot hold it, for there `<` is escaped."""


def render(name: str, **content: Any) -> str:
    """Return a page made from `pages/NAME`."""
    style, script = _style(), _read("script.js")
    security_policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # Ours, and without `</`: text of a model never comes this way.
    trusted = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    page = _environment().get_template(name)
    return page.render(security_policy=security_policy, **trusted, **content)


def with_blocks(page: str, blocks: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a page in parts, with blocks of packed data by their ids; none is held in memory."""
    head, tail = page.split(_DATA)
    yield head
    for name, text in blocks:
        yield f'<script type="application/json" id="{name}">{text}</script>\n'
    yield tail


def percent(value: float | None) -> str:
    """Show a score as in every table.

    >>> percent(0.6875)
    '68.8'
    """
    return "–" if value is None else f"{100 * value:.1f}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def _style() -> str:
    theme = (bundled("leaderboard") / "theme.css").read_text(encoding="utf-8")
    return f"{theme}\n{_read('style.css')}"


def _read(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
