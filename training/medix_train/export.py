"""A checkpoint as a model folder that `medix-eval --model` and everything else can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.storage.digests import digest
from medix_eval.storage.version import __version__
from medix_train.recipe import Recipe
from medix_train.settings import load_model, load_processor

if TYPE_CHECKING:
    from medix_train.checkpoints import Evaluation

_TRAINER_STATE = (
    "optimizer*", "scheduler*", "rng_state*", "scaler*", "trainer_state.json", "training_args.bin",
    "global_step*", "pytorch_model_fsdp*", "README.md",
)  # fmt: skip

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
base_model: {base}
---
# {name}

{summary}

Trained by medix-train {version} from {base} on `{data}`, recipe digest `{digest}`; reward edition
`{edition}`, weights {weights}.

For research. It is no medical device, and no clinical use has been studied.
"""
_SCORED = """
Update {update} was the best of its training under protocol `{protocol}`. It was chosen by these
very numbers, so they are somewhat too good:

| task | score |
|---|---|
"""


def export(checkpoint: Path, *, to: Path, recipe: Recipe, evaluation: Evaluation | None) -> None:
    """Write merged weights, processor, chat template and a card."""
    shutil.rmtree(to, ignore_errors=True)
    if merged(checkpoint, recipe=recipe, to=to) == checkpoint:
        shutil.copytree(checkpoint, to, ignore=shutil.ignore_patterns(*_TRAINER_STATE))
    (to / "README.md").write_text(card(recipe, evaluation), encoding="utf-8")


def merged(checkpoint: Path, *, recipe: Recipe, to: Path) -> Path:
    """Return a folder that can be loaded: the checkpoint, or its adapter merged, in `to`."""
    if not (checkpoint / "adapter_config.json").exists():
        return checkpoint
    from peft import PeftModel  # noqa: PLC0415 (seconds)

    shutil.rmtree(to, ignore_errors=True)
    adapted: Any = PeftModel.from_pretrained(load_model(recipe.model), str(checkpoint))
    adapted.merge_and_unload().save_pretrained(to)
    load_processor(recipe.model).save_pretrained(to)
    return to


def card(recipe: Recipe, evaluation: Evaluation | None) -> str:
    """Say what the model is, how it was made and what it scored; the front matter is the hub's."""
    resolved = recipe.model_dump(mode="json")
    weights = [f"{name} {value:g}" for name, value in resolved["reward"]["weights"].items()]
    text = _CARD.format(
        base=json.dumps(recipe.model.path),
        name=recipe.name,
        summary=recipe.summary,
        version=__version__,
        digest=digest(resolved)[:8],
        data=recipe.data.path,
        edition=recipe.reward.edition,
        weights=", ".join(weights),
    )
    if evaluation is None:
        return text
    rows = [f"| {name} | {100 * score:.1f} |" for name, score in evaluation.tasks.items()]
    scored = _SCORED.format(update=evaluation.update, protocol=evaluation.protocol)
    return text + scored + "\n".join(rows) + "\n"
