"""What watches the pages must itself see what is wrong with a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_BAD = """<!doctype html><html><head><title>x</title></head><body><img src="missing.png">
<p style="color:#ccc;background:#fff">pale</p><script>undefinedFunction()</script></body></html>"""


def test_a_bad_page_is_seen_to_be_bad(visit: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(_BAD, encoding="utf-8")

    visited = visit(page)

    broken = {violation.partition(":")[0] for violation in visited.violations()}
    assert not visited.is_clean
    assert any("undefinedFunction" in problem for problem in visited.problems)
    assert {"color-contrast", "html-has-lang", "image-alt"} <= broken
