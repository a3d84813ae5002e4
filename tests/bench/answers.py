"""Tokens a second of our transformers backend and of a bare `generate` loop, in one process.

Prints one JSON line. Usage: python answers.py MODEL LENGTH, with LENGTH `even` (every answer is
cut at 48 tokens) or `mixed` (three short and a long answers in turn).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.torch_cpu import declare_missing_operators, threads_for
from medix_eval.models.transformers_model import TransformersModel

BATCH = 16
TURNS = {"even": 7, "mixed": 3}
TOPICS = (
    *("asthma", "gout", "anaemia", "migraine", "sepsis", "measles", "angina", "eczema"),
    *("diabetes", "cataract", "scurvy", "malaria", "pneumonia", "epilepsy", "rickets", "mumps"),
)
SHORT = "Answer with yes or no only: is {} a disease?"
LONG = "Explain in four sentences what {} is, how it is found and how it is treated."
FORMS = {"even": (LONG,), "mixed": (SHORT, SHORT, SHORT, LONG)}
MOST = {"even": 48, "mixed": 96}


def bare(model: str, texts: list[str], most: int) -> tuple[int, float]:
    """Answer in batches, each as long as its longest answer; loading is not counted."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    torch.set_num_threads(threads_for(loaded.num_parameters()))
    chats = [[{"role": "user", "content": text}] for text in texts]
    tokens = 0
    began = time.perf_counter()
    for start in range(0, len(chats), BATCH):
        inputs: Any = tokenizer.apply_chat_template(
            chats[start : start + BATCH],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        )
        with torch.inference_mode():
            found = loaded.generate(**inputs, do_sample=False, max_new_tokens=most)
        for row in found[:, inputs["input_ids"].shape[1] :].tolist():
            end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else most - 1
            tokens += min(end + 1, most)
    return tokens, time.perf_counter() - began


def ours(model: str, texts: list[str], most: int) -> tuple[int, float]:
    """Answer through the adapter, with as many prompts in flight as a batch has rows."""
    source = TransformersModel(name="bench", location=model, concurrency=BATCH)
    gate = asyncio.Semaphore(BATCH)

    async def asked() -> tuple[int, float]:
        async with source.open(Path()) as chat:
            began = time.perf_counter()

            async def ask(text: str) -> Completion:
                async with gate:
                    return await chat.complete(Prompt(text=text), Sampling(max_tokens=most))

            answers = await asyncio.gather(*map(ask, texts))
            return sum(one.completion_tokens or 0 for one in answers), time.perf_counter() - began

    return asyncio.run(asked())


def main() -> None:
    """Measure both in turns."""
    declare_missing_operators()
    model, length = sys.argv[1:]
    forms = FORMS[length]
    texts = [
        forms[(number + turn) % len(forms)].format(topic)
        for turn in range(2 if length == "mixed" else 1)
        for number, topic in enumerate(TOPICS)
    ]
    ways = {"bare": bare, "ours": ours}
    per_s: dict[str, list[float]] = {name: [] for name in ways}
    counted = {}
    for _ in range(TURNS[length]):
        for name, way in ways.items():
            tokens, seconds = way(model, texts, MOST[length])
            per_s[name].append(tokens / seconds)
            counted[name] = tokens
    found = {"per_s": per_s, "tokens": counted, "answers": len(texts)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
