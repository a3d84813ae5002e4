"""A full disk ends a command in one line, and the same command goes on when there is room."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medix_eval.errors import ConfigError, DatasetError, full_disk
from medix_eval.testing import ScriptedServer

HUB = Path(__file__).parent / "fixtures" / "hub"
Evaluate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def evaluate(tmp_path: Path) -> Iterator[Evaluate]:
    """Run an evaluation in a process of its own, in which no file may outgrow a limit."""
    # What measures coverage would write a file of its own, and meet the limit first.
    unmeasured = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    with ScriptedServer(lambda _: "It is the first. " * 200) as server:

        def call(*, limit: int = resource.RLIM_INFINITY, **env: str) -> Any:
            return subprocess.run(
                [
                    *(sys.executable, "-m", "medix_eval", "--protocol", "rules"),
                    *("--model", "openai:scripted", "--base-url", server.url),
                    *("--tasks", "medqa", "--data-root", str(HUB), "--out", str(tmp_path)),
                ],
                env={**unmeasured, **env},
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            )

        assert call().returncode == 0  # now the rows are in the cache of the datasets
        yield call


def test_a_run_that_filled_the_disk_goes_on_where_it_was(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    (whole,) = tmp_path.glob("*/*/completions.jsonl")
    num_lines = len(whole.read_bytes().splitlines())
    shutil.rmtree(whole.parent)

    stopped = evaluate(limit=20_000)  # judging.json, with its patterns of refusals, fits
    kept = whole.read_bytes()
    resumed = evaluate()

    error, hint = stopped.stderr.strip().splitlines()[-2:]
    assert stopped.returncode == 2, stopped.stderr
    assert error == f"error: the disk is full: {whole} was not written"
    assert hint.startswith("hint: free some space and run the same command again")
    assert resumed.returncode == 0, resumed.stderr
    assert whole.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert 0 < kept.count(b"\n") < whole.read_bytes().count(b"\n") == num_lines


def test_a_dataset_that_does_not_fit_into_the_cache_is_no_fault_of_the_data(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    stopped = evaluate(limit=2000, HF_HOME=str(tmp_path / "home"))

    assert stopped.returncode == 2
    assert "the disk is full: " in stopped.stderr
    assert f"does not fit into {tmp_path / 'home'}" in stopped.stderr


def test_only_a_full_disk_is_one() -> None:
    full, broken = OSError(errno.EDQUOT, "quota"), OSError(errno.EIO, "broken")
    told = DatasetError("cannot load")
    told.__cause__ = full

    assert full_disk(told) is full
    assert full_disk(broken) is None
    assert full_disk(ConfigError("no flag")) is None
