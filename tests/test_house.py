"""What every file of the repository keeps to."""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
Tracked = Callable[..., list[str]]
HOME_OF_SOMEBODY = re.compile(r"(?<![\w.-])/(?:home|Users|root|work|mnt|opt)/\w")
OF_CUDA = ("cuda-", "nvidia-", "triton")  # torch brings these where it has CUDA, and pins them
PIN = re.compile(r"([A-Za-z0-9._-]+)==[^+\s]+")


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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for extra in ("hf", "embed", "train", "dev"):
        wanted += extras[extra]

    brought = {name for name in everything_below(wanted) if not name.startswith(OF_CUDA)}

    assert sorted(brought - pinned) == []


def test_no_test_leaves_the_machine() -> None:
    with socket.socket() as somewhere, pytest.raises(RuntimeError, match="mark it `network`"):
        somewhere.connect(("192.0.2.1", 80))


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
