"""`.ci/venv`, with a Python that installs nothing: what it asks for, and how it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

STUB = """#!/usr/bin/env bash
echo "$*" >>calls
case "$*" in
    *ensurepip*) exit "${VENV_STATUS:-0}" ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "$0" >.venv/pyvenv.cfg ;;
    "-m pip install"*) echo "$PIP_SAYS"; exit "${PIP_STATUS:-0}" ;;
esac
"""
BROKEN_SHIM = "#!/usr/bin/env bash\necho 'shim: command not found' >&2; exit 127\n"
SMALL_DISK = "#!/usr/bin/env bash\nprintf 'head\\n/dev/x 9 9 3000000 9%% /\\n'\n"


@dataclass(frozen=True, slots=True)
class Checkout:
    root: Path

    def put_on_path(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def make_venv(self, extras: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [str(self.root / ".ci" / "venv"), *extras.split()],
            env={"PATH": path, "PIP_SAYS": "", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> list[str]:
        """List what pip was asked to install so far, one call a line."""
        calls = (self.root / "calls").read_text().splitlines()
        return [call.split("constraints.txt ")[1] for call in calls if "pip install" in call]


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Checkout:
    cure = "medix_eval/models/before_torchvision.py"
    for name in (".ci/venv", ".ci/venv-functions", "pyproject.toml", "constraints.txt", cure):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    checkout = Checkout(tmp_path)
    checkout.put_on_path("python3.14", STUB)
    return checkout


def test_a_second_call_installs_nothing(checkout: Checkout) -> None:
    checkout.make_venv("hf")

    again = checkout.make_venv("hf")

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert checkout.installs() == ["-e .[hf]"]


def test_tests_complete_what_the_demo_made(checkout: Checkout) -> None:
    checkout.make_venv("hf")

    checkout.make_venv("hf embed dev")

    assert checkout.installs() == ["-e .[hf]", "-e .[hf,embed,dev]"]


def test_the_demo_finds_all_it_needs_after_the_tests(checkout: Checkout) -> None:
    checkout.make_venv("hf embed dev")

    checkout.make_venv("hf")

    assert checkout.installs() == ["-e .[hf,embed,dev]"]


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt", ".venv/pyvenv.cfg"])
def test_a_change_installs_again_and_keeps_the_extras(checkout: Checkout, changed: str) -> None:
    checkout.make_venv("hf dev")
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")

    checkout.make_venv("hf")

    assert checkout.installs() == ["-e .[hf,dev]", "-e .[hf,dev]"]


def test_an_interrupted_install_is_done_again(checkout: Checkout) -> None:
    checkout.make_venv("hf", PIP_STATUS="1")

    done = checkout.make_venv("hf")

    assert done.returncode == 0
    assert checkout.installs() == ["-e .[hf]", "-e .[hf]"]


def test_torch_comes_from_the_index_that_is_named(checkout: Checkout) -> None:
    checkout.make_venv("hf", TORCH_INDEX="https://example.org/cpu")

    assert checkout.installs() == [
        "--no-deps --index-url https://example.org/cpu torch torchvision",
        "-e .[hf]",
    ]


def test_a_shim_that_leads_nowhere_is_passed_over(checkout: Checkout) -> None:
    checkout.put_on_path("python3.14", BROKEN_SHIM)
    checkout.put_on_path("python3.13", STUB)

    made = checkout.make_venv("hf")

    assert made.returncode == 0
    assert "python3.13" in (checkout.root / ".venv" / "pyvenv.cfg").read_text()


@pytest.mark.parametrize(
    ("env", "cure"),
    [
        pytest.param({"PYTHON": "no-such-python"}, "install one", id="no-python"),
        pytest.param(
            {"PYTHON": "python3.14", "VENV_STATUS": "1"},
            "apt install python3.14-venv",
            id="no-venv-module",
        ),
        pytest.param(
            {"PIP_SAYS": "broken by 'NewConnectionError(...)'", "PIP_STATUS": "1"},
            "check the network",
            id="no-network",
        ),
        pytest.param(
            {"PIP_SAYS": "OSError: [Errno 28] No space left on device", "PIP_STATUS": "1"},
            "free some space",
            id="disk-fills-up",
        ),
        pytest.param(
            {"PIP_SAYS": "Traceback\n  ERROR: no wheel fits\nnote: x", "PIP_STATUS": "1"},
            "ERROR: no wheel fits (see .venv/install.log)",
            id="anything-else",
        ),
    ],
)
def test_a_failure_is_one_line_with_the_cure(
    checkout: Checkout, env: dict[str, str], cure: str
) -> None:
    failed = checkout.make_venv("hf", **env)
    errors = [line for line in failed.stderr.splitlines() if not line.startswith("Installing")]

    assert failed.returncode == 2
    assert len(errors) == 1
    assert cure in errors[0]


@pytest.mark.parametrize(("extras", "need"), [("hf", 4), ("hf dev", 6)])
def test_too_little_disk_is_said_before_anything_is_made(
    checkout: Checkout, extras: str, need: int
) -> None:
    checkout.put_on_path("df", SMALL_DISK)

    failed = checkout.make_venv(extras)

    assert failed.returncode == 2
    assert (
        failed.stderr == f"error: 2 GB of disk are free and .venv needs {need}; free some space\n"
    )
    assert not (checkout.root / ".venv").exists()


@pytest.mark.slow
def test_pips_own_words_for_no_network_are_understood(checkout: Checkout) -> None:
    (checkout.root / "bin" / "python3.14").unlink()
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0"}

    failed = checkout.make_venv(
        "hf", PIP_CONFIG_FILE=os.devnull, HOME=str(checkout.root), **nowhere
    )

    assert "pip cannot reach its package index" in failed.stderr
