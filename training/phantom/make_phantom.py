"""Train the phantom model from scratch, on one CPU core, in minutes.

    python training/phantom/make_phantom.py --out DIR
    python training/phantom/make_phantom.py --half --out DIR

The defaults of the first are the recipe of the shipped weights; the second makes the half-trained
phantom from them. The number of steps is fixed, not the time, and one thread does the arithmetic,
so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import logging
import math
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from phantom_data import IGNORED, EncodedBatches, corpus, habitual_batches
from phantom_model import build_model, build_processor, save
from torch.utils.data import DataLoader

from medix_eval.phantom.dataset import model_folder

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_LOGGER = logging.getLogger(__name__)
_STEPS = 2500
_LEARNING_RATE = 4e-3
_HALF_STEPS = 120
_HALF_LEARNING_RATE = 1e-3
_WARM_UP = 50
_CONSTANT_SHARE = 0.4
_LAST_FACTOR = 0.02


def train(out: Path, *, steps: int = _STEPS, seed: int = 0) -> None:
    """Train a model and write its folder."""
    processor = build_processor(corpus())
    model = build_model(processor, seed=seed)
    drawn = EncodedBatches(processor, seed=seed)
    _fit(model, drawn, steps=steps, learning_rate=_LEARNING_RATE)
    save(model, processor, to=out)


def train_half(out: Path, *, steps: int = _HALF_STEPS, seed: int = 0) -> None:
    """Make the half-trained phantom, where `phantom-grpo` starts: it sees, and answers by habit.

    Its weights are stored in half precision, which is enough for where a training starts.
    """
    # Not above: `phantom_model` first declares what torchvision needs.
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration  # noqa: PLC0415

    processor = AutoProcessor.from_pretrained(model_folder())
    model = Qwen3VLForConditionalGeneration.from_pretrained(model_folder(), dtype=torch.float32)
    drawn = EncodedBatches(processor, seed=seed, draw=habitual_batches)
    _fit(model, drawn, steps=steps, learning_rate=_HALF_LEARNING_RATE)
    save(model.half(), processor, to=out)


def _fit(
    model: Qwen3VLForConditionalGeneration,
    batches: EncodedBatches,
    *,
    steps: int,
    learning_rate: float,
) -> None:
    torch.set_num_threads(1)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps=steps)
    )
    # One worker draws the next batches while this one is learnt from; their order is fixed.
    drawn = DataLoader(batches, batch_size=None, num_workers=1)
    model.train()
    mean_loss = 0.0
    embedding = model.model.visual.patch_embed
    with patch.object(embedding, "forward", partial(_embed_patches, embedding.proj)):
        for step, batch in enumerate(islice(drawn, steps), start=1):
            loss = _loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            mean_loss += (loss.item() - mean_loss) / min(step, 20)
            if step % 100 == 0:
                _LOGGER.info("step %d of %d, loss %.4f", step, steps, mean_loss)


def learning_rate_factor(step: int, *, steps: int) -> float:
    """Return the share of the full learning rate: warm-up, a plateau, then a cosine down.

    >>> [round(learning_rate_factor(step, steps=1000), 2) for step in (0, 49, 400, 700, 1000)]
    [0.02, 1.0, 1.0, 0.51, 0.02]
    """
    done = step / steps
    if done < _CONSTANT_SHARE:
        return min(1.0, (step + 1) / _WARM_UP)
    falling = (done - _CONSTANT_SHARE) / (1 - _CONSTANT_SHARE)
    return _LAST_FACTOR + (1 - _LAST_FACTOR) * 0.5 * (1 + math.cos(math.pi * falling))


def _loss(model: Qwen3VLForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of the completions; logits are computed for their tokens only."""
    targets = batch.pop("labels")[:, 1:]
    hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
    counted = targets != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), targets[counted])


def _embed_patches(convolution: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """Embed patches by one matrix product: what their convolution does, much faster on a CPU."""
    return torch.nn.functional.linear(
        patches, convolution.weight.flatten(start_dim=1), convolution.bias
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the phantom model from scratch.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--half", action="store_true", help="make the half-trained phantom")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.half:
        train_half(arguments.out, steps=arguments.steps or _HALF_STEPS, seed=arguments.seed)
    else:
        train(arguments.out, steps=arguments.steps or _STEPS, seed=arguments.seed)


if __name__ == "__main__":
    main()
