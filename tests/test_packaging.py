from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

import pytest

DATA_FOLDERS = {
    "tasks": "tasks",
    "judges": "judges",
    "leaderboard": "leaderboard",
    "training/recipes": "recipes",
}
"""Where each stands in a checkout, and below `_bundled` in the wheel."""
Tracked = Callable[..., list[str]]


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    built = build_wheel(repository, out=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_two_import_names(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name}

    assert names == {"medix_eval", "medix_train"}


@pytest.mark.parametrize("folder", DATA_FOLDERS)
def test_the_wheel_has_every_data_file(
    wheel: zipfile.ZipFile, tracked_files: Tracked, folder: str
) -> None:
    files = tracked_files(folder)

    assert files
    bundled = {
        f"medix_eval/_bundled/{DATA_FOLDERS[folder]}{name.removeprefix(folder)}" for name in files
    }
    assert bundled <= set(wheel.namelist())


def test_the_wheel_has_every_file_of_the_packages(
    wheel: zipfile.ZipFile, tracked_files: Tracked
) -> None:
    files = [
        *tracked_files("medix_eval"),
        *(name.removeprefix("training/") for name in tracked_files("training/medix_train")),
    ]

    assert "medix_eval/py.typed" in files
    assert set(files) <= set(wheel.namelist())


def test_an_installed_wheel_finds_its_own_data(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    find = (
        "from medix_eval.storage.bundled import bundled; print(*map(bundled, ('tasks', 'judges')))"
    )

    found = subprocess.run(
        [sys.executable, "-c", find],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    bundle = tmp_path / "medix_eval" / "_bundled"
    assert found.stdout.split() == [str(bundle / "tasks"), str(bundle / "judges")]


def test_the_core_install_asks_for_no_torch(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist", [])
    core = [line for line in requirements if "extra ==" not in line]

    assert core
    assert not [line for line in core if line.startswith(("torch", "transformers", "vllm"))]


@pytest.mark.slow
def test_a_missing_data_folder_stops_the_build(repository: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "medix_eval", tmp_path / "medix_eval")
    shutil.copytree(repository / "training", tmp_path / "training")

    built = build_wheel(tmp_path, out=tmp_path / "dist")

    assert built.returncode != 0
    assert "data folder 'tasks' is missing" in built.stderr


def build_wheel(root: Path, *, out: Path) -> subprocess.CompletedProcess[str]:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    return subprocess.run(build, cwd=root, capture_output=True, text=True, check=False)
