"""Judges that are not neutral: of the candidate's own family, or the one it was trained to please.

Only what is known is said. A name that tells no family gives no warning, and no all-clear either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import RulesOnly, load_protocol
from medix_eval.models.checkpoint import describe

_FAMILIES = {
    "Qwen": r"qwen|qwq|medix-?r1|lingshu|fleming-vl|medmo|huatuogpt-(o1|vision)",
    "Llama": r"llama|bimedix|med42|aloe",
    "Gemma": r"gemma",
    "Mistral": r"mistral|mixtral|ministral|biomistral",
    "GPT": r"gpt-?\d|gpt-oss|chatgpt|\bo[134](-mini)?\b",
    "Claude": r"claude",
    "Gemini": r"gemini",
    "DeepSeek": r"deepseek",
    "Phi": r"\bphi-?\d",
    "InternVL": r"intern(vl|lm)",
}
"""Base models and what is known to be trained from them, by what their names hold."""
_TRAINED_WITH = {r"medix-?r1": "Qwen/Qwen3-4B-Instruct-2507"}
"""The judge behind the published reward."""


def kinship_warnings(candidate: str, judges: Iterable[str]) -> list[str]:
    """Say why a judge may favour this candidate.

    >>> kinship_warnings("MBZUAI/MediX-R1-8B", ["Qwen/Qwen3-14B", "google/gemma-3-27b-it"])
    ['Qwen/Qwen3-14B judges MBZUAI/MediX-R1-8B, and both are of the Qwen family']
    """
    said = []
    family, teacher = _family(candidate), _trained_with(candidate)
    for judge in judges:
        if teacher is not None and _bare(teacher) == _bare(judge):
            said.append(f"{judge} judges {candidate}, which was trained to please this judge")
        elif family is not None and family == _family(judge):
            said.append(f"{judge} judges {candidate}, and both are of the {family} family")
    return said


def _family(name: str) -> str | None:
    """Return a model's family by its name; of a folder by what its config says."""
    text = name
    if Path(name).is_dir():
        try:
            config = describe(name).config
        except ConfigError:
            config = {}
        text = f"{Path(name).name} {config.get('model_type', '')}"
    found = (one for one, names in _FAMILIES.items() if re.search(names, text.lower()))
    return next(found, None)


def _trained_with(name: str) -> str | None:
    """Return the judge of a model's training: as its recipe says, or as it was published."""
    folder = Path(name)
    for file in (folder / "recipe.json", folder.parent / "recipe.json"):
        if folder.is_dir() and file.is_file():
            return _judge_of_recipe(file)
    known = (judge for names, judge in _TRAINED_WITH.items() if re.search(names, name.lower()))
    return next(known, None)


def _judge_of_recipe(file: Path) -> str | None:
    try:
        reward = json.loads(file.read_text(encoding="utf-8"))["recipe"]["reward"]
        named = reward["judge"]["model"]
        spec = load_protocol(reward["protocol"]).judge
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
    default = None if isinstance(spec, RulesOnly) else spec.model
    return named if isinstance(named, str) else default


def _bare(name: str) -> str:
    """Return a model's name without provider, organisation and revision."""
    return name.rpartition(":")[2].rpartition("/")[2].partition("@")[0].lower()
