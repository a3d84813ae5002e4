"""GRPO makes the half-trained phantom better on questions that no training saw, with any seed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from demo_train import train_phantom

from medix_eval.cli.app import main
from medix_eval.results.comparison import compare_runs
from medix_eval.results.store import JudgedRun, read_run
from medix_eval.storage.bundled import bundled

pytestmark = pytest.mark.slow
SEEDS = (1, 2, 3)


def evaluated(model: Path, out: Path) -> JudgedRun:
    with pytest.raises(SystemExit) as done:
        main(["--model", str(model), "--backend", "hf", "--tasks", "phantom",
              "--protocol", "rules", "--out", str(out)])  # fmt: skip
    assert done.value.code == 0
    (run,) = out.glob("*/*/run.json")
    return read_run(run.parent)


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory: pytest.TempPathFactory) -> JudgedRun:
    return evaluated(bundled("recipes") / "phantom-half", tmp_path_factory.mktemp("half"))


@pytest.mark.parametrize(
    "seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.long) for seed in SEEDS[1:])]
)
def test_grpo_makes_the_half_trained_phantom_better(
    half_trained: JudgedRun, seed: int, tmp_path: Path
) -> None:
    model = train_phantom(tmp_path / "training", seed=seed)
    found = compare_runs([half_trained, evaluated(model, tmp_path / "runs")])
    gain = found.pairs[0].groups["phantom"]

    assert gain.difference >= 0.10
    assert gain.interval is not None
    assert gain.interval[0] > 0
