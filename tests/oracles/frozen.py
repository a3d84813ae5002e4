"""What users see of one version: help, digests, tables, pages and exports of the saved 0.1 runs.

`python tests/oracles/frozen.py FOLDER` writes each artefact as a file, so that two versions can be
compared with `diff -r`; `tests/test_upgrade.py` compares their hashes with `frozen.json`, which
`--write` writes anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from medix_eval.cli.app import main
from medix_eval.data.tasks import load_tasks
from medix_eval.storage.bundled import bundled

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
V0_1 = FIXTURES / "v0_1"
COMMANDS = (
    "", "tasks", "show", "score", "judge", "judge-check", "report", "compare", "data", "export",
    "gate", "reproduce", "leaderboard", "import", "submit", "data new", "data check",
    "data pull", "data verify",
)  # fmt: skip
PROTOCOLS = ("cascade", "medix", "medix-compat", "reward", "rules")
FORMS = ("markdown", "csv", "latex", "bibtex", "methods")


def artefacts(work: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of everything that is frozen; `work` is an empty folder."""
    # typer wraps by these, and a terminal's own width must not enter.
    os.environ |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    for command in COMMANDS:
        yield f"help/{command or 'medix-eval'}.txt", said(*command.split(), "--help")
    catalogue = load_tasks([bundled("tasks")])
    digests = {name: task.digest for name, task in catalogue.tasks.items()}
    yield "tasks/digests.json", json.dumps(digests, indent=1)
    yield "tasks/listing.json", said("tasks", "--json")
    for name in PROTOCOLS:
        yield f"protocols/{name}.txt", said("show", "--protocol", name)
    shutil.copytree(V0_1 / "runs", work / "runs")
    with contextlib.chdir(work):
        yield from _of_runs(work)


def _of_runs(work: Path) -> Iterator[tuple[str, str]]:
    runs = sorted(path.parent.relative_to(work) for path in work.glob("runs/*/*/*/run.json"))
    for run in runs:
        (judged,) = (run / "judged").iterdir()
        name = f"{run.parts[1]}-{run.parts[-1]}"
        yield f"runs/{name}/table.txt", said("score", str(judged))
        for file in ("scores.json", "scores.csv", "report.md", "report.html"):
            yield f"runs/{name}/{file}", (judged / file).read_text(encoding="utf-8")
    whole = [str(run) for run in runs if run.parts[1] in {"medix", "rules", "compat"}]
    repeats = [str(run) for run in runs if run.parts[1] == "repeat"]
    for form in FORMS:
        yield f"exports/{form}.txt", said("export", *repeats, "--format", form)
    yield "exports/methods-of-all.txt", said("export", *whole, "--format", "methods")
    yield "compare/repeats.txt", said("compare", *repeats)
    yield "compare/repeats.json", said("compare", *repeats, "--json")
    yield "compare/forced.txt", said("compare", *whole, "--force")
    yield (
        "compare/control.txt",
        said("compare", *map(str, sorted(Path("runs/control").glob("*/*")))),
    )
    ranked = [f"runs/{name}" for name in ("medix", "rules", "compat", "repeat")]
    yield "site.txt", said("leaderboard", *ranked, "--allow-synthetic", "--out", "site")
    for page in sorted(Path("site").rglob("*.*")):
        if page.is_file() and page.suffix not in {".zip", ".parquet", ".png"}:
            yield str(page), page.read_text(encoding="utf-8")


def said(*argv: str) -> str:
    """Run the command in this process and return what it prints, with its exit code."""
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main([*argv])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    text = re.sub(r"[ \t]+$", "", printed.getvalue(), flags=re.MULTILINE)
    return f"{text}\nexit code {code}\n"


def hashes(folder: Path) -> dict[str, str]:
    """Return the digest of every artefact below a folder, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "work"
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that does not exist, or is empty")
    parser.add_argument("--write", action="store_true", help="freeze what is found")
    asked = parser.parse_args()
    target = asked.folder.resolve()
    (target / "work").mkdir(parents=True)
    for artefact, text in artefacts(target / "work"):
        path = target / artefact
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if asked.write:
        listed = json.dumps(hashes(target), indent=1) + "\n"
        (V0_1 / "frozen.json").write_text(listed, encoding="utf-8")
