"""What every file of the repository keeps to."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
Tracked = Callable[..., list[str]]
HOME_OF_SOMEBODY = re.compile(r"(?<![\w.-])/(?:home|Users|root|work|mnt|opt)/\w")
OF_CUDA = ("cuda-", "nvidia-", "triton")  # torch brings these where it has CUDA, and pins them
PIN = re.compile(r"([A-Za-z0-9._-]+)==[^+\s]+")
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
BROUGHT_FOR_OTHERS = {
    "accelerate": "transformers and trl place weights with it",
    **dict.fromkeys(("lxml", "nltk", "requests", "urllib3"), "lm-eval brings any age of it"),
    "openpyxl": "pandas reads Excel with it",
    "tensorboard": "trl writes its curves for it",
}
"""What an extra brings although no line of ours imports it, and why."""
MOST_ENTRIES = 20
MOST_FLOORS = 10
MOST_FILES_OF_A_SAMPLE = 36
MOST_LINES = {"medix_eval": 28_378, "training/medix_train": 1_814}
Arrows = Mapping[str, Iterable[str]]


def test_data_folders_hold_no_python(tracked_files: Tracked) -> None:
    """With an `__init__.py`, `import judges` in a checkout would find ours, not PyPI's."""
    code = [
        name
        for name in tracked_files("tasks", "judges", "leaderboard", "training/recipes")
        if name.endswith((".py", ".pyi"))
    ]

    assert code == []


def test_no_file_names_a_folder_of_somebodys_machine(tracked_files: Tracked) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked_files()
        for number, line in enumerate(text_of(ROOT / name).splitlines(), start=1)
        if HOME_OF_SOMEBODY.search(line)
    ]

    assert found == []


def test_every_constraint_is_one_public_version() -> None:
    """A local version such as `+cpu` would fit one index only."""
    assert [line for line in constraint_lines() if not PIN.fullmatch(line)] == []


def test_constraints_pin_all_that_the_extras_bring() -> None:
    pinned = {canonicalize_name(line.split("==")[0]) for line in constraint_lines()}
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"]]
    for extra in ("hf", "embed", "train", "dev"):
        wanted += extras[extra]

    brought = {name for name in everything_below(wanted) if not name.startswith(OF_CUDA)}

    assert sorted(brought - pinned) == []


def test_our_code_imports_what_the_extras_bring(tracked_files: Tracked) -> None:
    code = "\n".join(text_of(ROOT / name) for name in python_of(tracked_files))
    extras = project()["optional-dependencies"]
    wanted = [
        *project()["dependencies"],
        *(line for n in set(extras) - {"dev"} for line in extras[n]),
    ]
    names = {canonicalize_name(Requirement(line).name) for line in wanted} - {"medix-eval"}

    idle = {name for name in names if not is_imported(name, code)}
    assert idle == BROUGHT_FOR_OTHERS.keys()


def is_imported(name: str, code: str) -> bool:
    module = IMPORTED_AS.get(name, name.replace("-", "_"))
    return (
        re.search(rf"^ *(import|from) {module}\b|find_spec\(.{module}.\)", code, re.MULTILINE)
        is not None
    )


def test_the_package_has_few_entries(tracked_files: Tracked) -> None:
    entries = {name.split("/")[1] for name in tracked_files("medix_eval")}
    say(f"medix_eval: {len(entries)} entries at its top: {' '.join(sorted(entries))}")

    assert len(entries) <= MOST_ENTRIES


@pytest.mark.parametrize("package", MOST_LINES)
def test_the_code_stays_within_its_budget(tracked_files: Tracked, package: str) -> None:
    lines = sum(text_of(ROOT / name).count("\n") for name in python_of(tracked_files, package))
    say(f"{package}: {lines:,} lines of Python")

    assert lines <= MOST_LINES[package]


def test_no_files_import_each_other_in_a_circle(imports: Arrows) -> None:
    """Imports inside functions count: they only hide a circle."""
    circle = circle_in(imports)
    num_imports = sum(len([*below]) for below in imports.values())
    say(f"{len([*imports])} files, {num_imports} imports, a circle: {circle or 'none'}")

    assert circle == []


def test_rooms_stand_on_few_floors(imports: Arrows) -> None:
    rooms = rooms_of(imports)
    assert circle_in(rooms) == []
    floors: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        floors[room] = 1 + max((floors[below] for below in rooms[room]), default=0)
    arrows = sum(len([*below]) for below in rooms.values())
    say(f"{len(floors)} rooms, {max(floors.values())} floors, {arrows} arrows, 0 circles: {floors}")

    assert max(floors.values()) <= MOST_FLOORS


def test_no_room_imports_one_above_or_beside_it(imports: Arrows) -> None:
    """Floors by the contract of `make lint`, arrows by our own count: neither may miss a room."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    floor = {room: n for n, row in enumerate(reversed(layers)) for room in row.split(" | ")}
    rooms = {room: below for room, below in rooms_of(imports).items() if room in floor}

    assert rooms.keys() == floor.keys()
    assert {*rooms_of(imports)} - floor.keys() == {"medix_eval", "__main__", "medix_train"}
    up = [(a, b) for a in rooms for b in rooms[a] if floor.get(b, len(layers)) >= floor[a]]
    assert up == []


@pytest.mark.slow
def test_one_sample_enters_few_files(tmp_path: Path) -> None:
    script = ROOT / "tests" / "oracles" / "entered_files.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    entered = json.loads((tmp_path / "entered.json").read_text())
    say(
        f"{len(entered)} files:", *(f"{file}: {' '.join(names)}" for file, names in entered.items())
    )

    assert "evaluation/pipeline.py" in entered
    assert len(entered) <= MOST_FILES_OF_A_SAMPLE


def test_every_workflow_asks_make_for_targets_there_are(tracked_files: Tracked) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    workflows = {name: yaml.safe_load(text_of(ROOT / name)) for name in tracked_files(".github")}
    steps = [
        (name, job, step)
        for name, workflow in workflows.items()
        for job in workflow["jobs"].values()
        for step in job["steps"]
    ]
    asked = {
        target
        for _, _, step in steps
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))
    }

    assert {"lint", "test", "docs"} <= asked <= targets
    assert [step["uses"] for _, _, step in steps if not is_pinned(step.get("uses", "a@v1"))] == []
    assert [
        name for name, one in workflows.items() if one["permissions"] != {"contents": "read"}
    ] == []
    # YAML reads a bare `on` as true.
    assert [name for name, one in workflows.items() if not (one[True] and one["concurrency"])] == []


def is_pinned(action: str) -> bool:
    return re.fullmatch(r"[\w./-]+@v\d+", action) is not None


def test_no_test_leaves_the_machine() -> None:
    with socket.socket() as somewhere, pytest.raises(RuntimeError, match="mark it `network`"):
        somewhere.connect(("192.0.2.1", 80))


@pytest.fixture(scope="module")
def imports() -> Arrows:
    """What each of our files imports of ours, at its top or inside a function."""
    graph = grimp.build_graph("medix_eval", "medix_train", cache_dir=None)
    return {file: graph.find_modules_directly_imported_by(file) for file in graph.modules}


def rooms_of(imports: Arrows) -> dict[str, set[str]]:
    """Draw the arrows from room to room; all of `medix_train` is one room, and stands on top."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for file, below in imports.items():
        rooms[room_of(file)] |= {room_of(other) for other in below} - {room_of(file)}
    return rooms


def room_of(file: str) -> str:
    package, *rest = file.split(".")
    return rest[0] if rest and package == "medix_eval" else package


def circle_in(arrows: Arrows) -> list[str]:
    """Return one circle, if there is any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [*error.args[1]]
    return []


def project() -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return read


def python_of(tracked_files: Tracked, *packages: str) -> list[str]:
    names = tracked_files(*(packages or MOST_LINES))
    return [name for name in names if name.endswith(".py")]


def say(*lines: str) -> None:
    """Print figures: `pytest -rP` shows them."""
    sys.stdout.write("\n".join(lines) + "\n")


def everything_below(wanted: list[str]) -> set[str]:
    """Follow the requirements as pip does, through whatever of it is installed here."""
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    queue = [(Requirement(line), "") for line in wanted]
    while queue:
        requirement, asked_extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": asked_extra}):
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) in seen or name == "medix-eval":
                continue
            seen.add((name, extra))
            try:
                below = requires(name) or []
            except PackageNotFoundError:
                continue
            names.add(name)
            queue += [(Requirement(line), extra) for line in below]
    return names


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_the_old_expressions_are_gone(tracked_files: Tracked) -> None:
    """Messages, pages and docstrings keep to plain words: none comes back that was replaced."""
    listed = (ROOT / "tests" / "fixtures" / "old_words.txt").read_text().splitlines()
    places = ("medix_eval", "training", "leaderboard", "judges/sheet", "README.md")
    texts = {name: text_of(ROOT / name) for name in tracked_files(*places, "CONTRIBUTING.md")}
    found = [
        f"{name}: {hit[0]}"
        for name, text in texts.items()
        if name.endswith((".py", ".md", ".html", ".jinja", ".yaml", ".js"))
        for hit in re.finditer("|".join(f"(?:{one})" for one in listed), text)
    ]

    assert len(listed) > 70
    assert found == []
