"""Scores made again from the verdicts: a board believes `scores.json`, so all of it must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medix_eval.data.tasks import Catalogue
from medix_eval.exchange.submitted import Submission
from medix_eval.results.scoring import score_run

_NOT_FROM_VERDICTS = {"schema_version", "run", "labels", "cost", "tasks", "groups"}
_BY_LABELS = {"corrected", "corrected_interval"}
_FROM_TEXT = {"slices", "yes_no", "chance", "agreement_with_rules"}
_FROM_CLUSTERS = {"stderr", "interval", "interval_method", "n_clusters", "closed_form"}
"""Of a restricted task text and columns are left out, which these come from."""
_EXACT = 1e-9
_DRAWN = 0.005
"""Resampled limits may differ by this: another numpy may draw otherwise."""


def score_problems(given: Submission, catalogue: Catalogue) -> Iterator[str]:
    """Yield every figure in `scores.json` that its verdicts do not give."""
    stated = given.scores
    twins = given.judging.judging.get("twins")
    groups = {name: group.tasks for name, group in stated.groups.items()}
    groups |= catalogue.groups_with(twins if isinstance(twins, str) else None)
    again = score_run(
        given.folder,
        given.folder,
        manifest=given.manifest,
        judging=given.judging,
        groups=groups,
        allow_partial=any(
            one.score is not None for one in stated.groups.values() if not one.complete
        ),
    )
    said, true = stated.model_dump(mode="json"), again.model_dump(mode="json")
    yield from _unlike(said, true, but=_NOT_FROM_VERDICTS)
    restricted = {*given.listed.restricted} & {*given.judging.tasks}
    is_clustered = {name for name in restricted if given.manifest.tasks[name].cluster}
    for kind in ("tasks", "groups"):
        for name in sorted({*said[kind], *true[kind]}):
            members = {name} if kind == "tasks" else {*true[kind].get(name, {}).get("tasks", ())}
            but = _BY_LABELS | (_FROM_TEXT if members & restricted else set())
            but |= _FROM_CLUSTERS if members & is_clustered else set()
            yield from _unlike(said[kind].get(name), true[kind].get(name), at=name, but=but)


def unchecked_scores(given: Submission) -> Iterator[str]:
    """Yield what of the scores rests on files that are not in a submission."""
    scores = given.scores
    if scores.labels or any(one.corrected for one in scores.tasks.values()):
        yield "scores corrected by people's labels: those are not in a submission"
    if scores.cost:
        yield "what it cost: the prices are not in a submission"


def _unlike(said: Any, true: Any, *, at: str = "", but: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    if isinstance(said, dict) and isinstance(true, dict):
        for key in sorted({*said, *true} - but):
            yield from _unlike(said.get(key), true.get(key), at=f"{at} {key}".strip())
    elif isinstance(said, list) and isinstance(true, list) and len(said) == len(true):
        for one, other in zip(said, true, strict=True):
            yield from _unlike(one, other, at=at)
    elif not _is_same(said, true, within=_DRAWN if at.endswith("interval") else _EXACT):
        yield f"scores.json: {at} states {_short(said)}, its verdicts give {_short(true)}"


def _is_same(said: object, true: object, *, within: float) -> bool:
    if isinstance(said, int | float) and isinstance(true, int | float):
        return said == true or abs(said - true) <= within
    return said == true


def _short(value: object) -> str:
    text = (
        "nothing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
