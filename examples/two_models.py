"""Evaluate two models on the same questions and say whether one is better.

    python examples/two_models.py

It runs in a minute on a laptop: the "models" are the one that ships with the package, and the same
one without its eyes. Put your own models, tasks and judge in their place, for example
`model="openai:my-model", base_url="http://localhost:8000/v1", tasks="medvqa", judge=…`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import medix_eval


def main(out: Path, limit: int) -> None:
    """Evaluate, compare, and list what only one of the two got right."""
    task = "phantom_closed"
    sees = medix_eval.evaluate(model="phantom", tasks=task, protocol="rules", limit=limit, out=out)
    blind = medix_eval.evaluate(
        model="phantom", tasks=task, protocol="rules", limit=limit, out=out, control="no-image"
    )

    for name, run in (("with images", sees), ("without", blind)):
        scored = run.scores.tasks[task]
        print(f"{name:12} {scored.score:.3f} of {scored.n_scored} questions")

    one = medix_eval.compare(blind, sees, force=True).pairs[0].tasks[task]
    low, high = one.interval or (float("nan"), float("nan"))
    verdict = "clearly better" if one.is_clear else "not clearly better"
    print(f"with images is {verdict}: {one.difference:+.3f} (95 %: {low:+.3f} to {high:+.3f})")

    table = sees.to_pandas().merge(blind.to_pandas(), on="sample_id", suffixes=("", "_blind"))
    only = table[table.score > table.score_blind]
    print(only[["prompt", "reference", "answer", "answer_blind"]].head(3).to_string(index=False))
    print(f"report: {sees.report()}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/example"))
    parser.add_argument("--limit", type=int, default=120)
    given = parser.parse_args()
    main(given.out, given.limit)
