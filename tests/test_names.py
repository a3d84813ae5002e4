"""One name, one class: whoever reads a name anywhere in the harness knows which class it is."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import medix_eval


def test_no_two_classes_have_one_name() -> None:
    package = Path(medix_eval.__file__).parent
    found = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(package)}:{node.lineno}")

    assert {name: places for name, places in found.items() if len(places) > 1} == {}
