"""Which of our files one sample enters: `python tests/oracles/entered_files.py OUT` writes
`entered.json` into the folder.

A file is entered where a function of it that has a name is called. What runs while a module of ours
is being imported is left out: decorators and class bodies say nothing of the way of a sample.
"""

from __future__ import annotations

import json
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType

from medix_eval.cli import app

PACKAGE = Path(app.__file__).resolve().parents[1]
WAY = ("--model", "phantom", "--tasks", "phantom_open", "--protocol", "rules", "--limit", "1")

entered: dict[str, set[str]] = {}


def note(frame: FrameType, event: str, _: object) -> None:
    """Note the file of a function that is called; this is what `sys.setprofile` takes."""
    code = frame.f_code
    # The body of a class is a frame too, but not an optimised one; a lambda has no name.
    is_function = code.co_flags & CO_OPTIMIZED and code.co_name[0] != "<"
    if event == "call" and is_function and code.co_filename.startswith(str(PACKAGE)):
        path = Path(code.co_filename)
        if path.suffix == ".py" and not is_importing(frame):
            entered.setdefault(str(path.relative_to(PACKAGE)), set()).add(code.co_name)


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether a call happens below an import."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


if __name__ == "__main__":
    out = Path(sys.argv[1])
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        app.main([*WAY, "--out", str(out)])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found = {file: sorted(entered[file]) for file in sorted(entered)}
        (out / "entered.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
