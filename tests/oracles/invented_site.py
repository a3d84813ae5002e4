"""A site of invented models, of falling skill and of every size, for tests in a browser."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from invented_runs import Answers, InventedRuns

from medix_eval.data.tasks import load_tasks
from medix_eval.site.boards import ModelFacts, Rules
from medix_eval.site.build import read_boards, write_site
from medix_eval.storage.bundled import bundled

TASKS = ("medqa", "medmcqa", "slake_vqa", "rad_vqa")
GROUPS = {"all_four": TASKS, "text_two": TASKS[:2]}


def site_of(make: Callable[[InventedRuns], Mapping[str, ModelFacts]], *, out: Path) -> Path:
    """Build a site of the runs that `make` makes; return its front page."""
    catalogue = load_tasks([bundled("tasks")])
    runs = InventedRuns(out / "results", catalogue)
    facts = make(runs)
    boards = read_boards([runs.out], catalogue=catalogue, facts=facts, allow_synthetic=True)
    return write_site(boards, out / "site", catalogue=catalogue, rules=Rules()).front


def drawn(place: int) -> Answers:
    """Draw the answers of one of the six; the last did not see the images."""
    draw = random.Random(place)  # noqa: S311
    return {
        task: [float(draw.random() < 0.9 - 0.1 * place) for _ in range(60)]
        for task in (TASKS[:2] if place == 5 else TASKS)
    }


def six_models(runs: InventedRuns) -> dict[str, ModelFacts]:
    """Make six models of one board, and one of another protocol."""
    facts = {}
    for place in range(6):
        name = f"lab/model-{place}"
        runs.make(name, drawn(place), groups=GROUPS, tokens=50 * (place + 1))
        facts[name] = ModelFacts(
            parameters_b=2.0 * 2**place,
            base="base/alpha" if place % 2 else "base/beta",
            training_samples=1000 * (place + 1),
            inputs="text" if place == 5 else "image+text",
            open_weights=True,
            open_data=place < 2,
        )
    runs.make("lab/other", {"medqa": [1.0] * 30}, protocol="cascade")
    return facts
