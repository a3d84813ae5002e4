"""What a control did to the scores, where the plain run lies beside it."""

from __future__ import annotations

import logging
from pathlib import Path

from medix_eval.errors import ConfigError
from medix_eval.evaluation.controls import Control
from medix_eval.results.comparison import compare_runs
from medix_eval.results.scores import ControlEffect
from medix_eval.results.store import JudgedRun, folder_of, read_run
from medix_eval.storage.digests import digest

_LOG = logging.getLogger(__name__)


def effect_of(run: JudgedRun) -> ControlEffect | None:
    """Hold a control against its plain run; None where there is none that has all its samples."""
    control = run.manifest.generation.get("control")
    if control is None:
        return None
    try:
        plain = read_run(_plain_folder(run))
        if not _holds_all_of(run, plain):
            return None
        (pair,) = compare_runs([run, plain]).pairs
    except ConfigError as error:
        _LOG.debug("no plain run to compare with: %s", error)
        return None
    is_of_images = Control.named(control).is_of_images
    return ControlEffect(
        name="vision gain" if is_of_images else "order sensitivity",
        plain=str(plain.judged),
        tasks=pair.tasks,
        groups=pair.groups,
        changed=pair.changed,
    )


def _plain_folder(run: JudgedRun) -> Path:
    generation = {key: value for key, value in run.manifest.generation.items() if key != "control"}
    plain = run.manifest.model_copy(update={"generation_digest": digest(generation)})
    return folder_of(run.folder.parent.parent, plain) / "judged" / run.judged.name


def _holds_all_of(run: JudgedRun, plain: JudgedRun) -> bool:
    for name in run.judging.tasks:
        if name not in plain.judging.tasks:
            return False
        mine, theirs = run.entry(name).rows, plain.entry(name).rows
        if theirs is not None and (mine is None or not set(mine) <= set(theirs)):
            return False
    return True
