"""Through every fault: nothing lost, nothing leaked, nothing that ends the run.

make chaos                                       # 20 trials of each row, in an hour
make chaos TRIALS=1 ONLY=SIGKILL SEED=7          # a few seconds
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("chaos", "oracles")]

from rows import ROWS, Row  # noqa: E402 (found by the line above)
from trial import NUM_SAMPLES, Counts, Kept, Plan, Trial, kept_in  # noqa: E402

_OF_THE_KILLED = "ignore:resource_tracker"
_HEAD = (
    "| fault | trials | lost | doubled | wrong | hung | leaked | exit codes |\n"
    "|---|--:|--:|--:|--:|--:|--:|---|\n"
)


def main() -> int:
    """Run the table; 1 if a number is not 0 that must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", default="*", help="rows whose name has this, such as `judge:`")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a Markdown page")
    asked = parser.parse_args()
    rows = [row for row in ROWS if fnmatch(row.name, f"*{asked.only}*")]
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PYTHONWARNINGS=_OF_THE_KILLED)
    for server in ("asyncio", "aiohttp.server"):  # that its clients hang up is no news
        logging.getLogger(server).setLevel(logging.CRITICAL)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="medix-chaos-") as folder:
        os.environ["HF_HOME"] = f"{folder}/home"
        found = run(rows, asked.trials, seed=asked.seed, jobs=asked.jobs, folder=Path(folder))
    page = _HEAD + "".join(map(line, rows, found))
    seconds = time.monotonic() - started
    say(f"\n{page}\n{len(rows)} rows, {seconds:.0f} s")
    if asked.write:
        asked.write.write_text(about(asked.trials, asked.seed, seconds) + page, encoding="utf-8")
    return 0 if all(counts.is_clean for counts in found) else 1


def run(rows: list[Row], trials: int, *, seed: int, jobs: int, folder: Path) -> list[Counts]:
    """Run all trials; those that mostly wait run beside the others."""
    hub = folder / "hub"
    write_rows(hub)
    undisturbed: dict[tuple[str, bool], Kept] = {}
    for protocol, echoes in {(row.plan.protocol, row.plan.echoes) for row in rows}:
        # The first also fills the cache of the datasets, so not at the same time.
        plan = Plan(protocol=protocol, echoes=echoes)
        one = Trial(plan, seed=seed, number=0, folder=folder / f"{protocol}-{echoes}", hub=hub)
        with one.open():
            one.finish()
        undisturbed[protocol, echoes] = kept = kept_in(one.out, one.key)
        if len(kept.samples) != NUM_SAMPLES or not all(s.is_scored for s in kept.samples.values()):
            sys.exit(f"the undisturbed run failed: {one.counts.unexpected}")
    pending: list[list[Future[Counts]]] = []
    with ThreadPoolExecutor(jobs) as busy, ThreadPoolExecutor(jobs) as waiting:
        for row in rows:
            pool = waiting if row.waits else busy
            one_of = partial(tried, row, undisturbed[row.plan.protocol, row.plan.echoes], hub)
            numbers = range(0 if row.needs else trials)
            pending.append([pool.submit(one_of, seed=seed, number=number) for number in numbers])
        return [
            added(row, [one.result() for one in of]) for row, of in zip(rows, pending, strict=True)
        ]


def tried(row: Row, undisturbed: Kept, hub: Path, *, seed: int, number: int) -> Counts:
    """Run one trial; its seed is that of the table, the row and the number."""
    own = int(sha256(f"{seed} {row.name} {number}".encode()).hexdigest()[:12], 16)
    folder = hub.parent / f"trial-{own}"
    trial = Trial(row.plan, seed=own, number=number, folder=folder, hub=hub)
    with trial.open():
        row.act(trial)
    return trial.weigh(undisturbed, completes=row.completes)


def added(row: Row, trials: Iterable[Counts]) -> Counts:
    """Add up a row's trials, and say how it went."""
    counts = Counts()
    for one in trials:
        counts.add(one)
    say(line(row, counts).rstrip())
    for said, number in Counter(counts.unexpected).most_common(3):
        say(f"    {number} × exit code {said[:300]}")
    return counts


def line(row: Row, counts: Counts) -> str:
    """Return the row of the table."""
    if row.needs:
        return f"| {row.name} | 0 | | | | | | not run: {row.needs} |\n"
    codes = ", ".join(f"{code} × {number}" for code, number in sorted(counts.codes.items()))
    cells = (counts.lost, counts.doubled, counts.wrong, counts.hung, counts.leaked)
    odd = f" ({len(counts.unexpected)} not as they should be)" if counts.unexpected else ""
    shown = " | ".join(map(str, cells))
    return f"| {row.name} | {counts.trials} | {shown} | {codes}{odd} |\n"


def about(trials: int, seed: int, seconds: float) -> str:
    """Return what stands above the table."""
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%h"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# Through every fault

`make chaos` runs the real command, in a process of its own, on {NUM_SAMPLES} samples against a
`FaultyServer` (`medix_eval.testing`), disturbs it as a row says, gives it again where the fault
ends it, and compares every sample and score with a run without faults.

- *lost*: samples without a score in the end
- *doubled*: samples answered or counted twice
- *wrong*: samples with another completion, outcome or score, and tasks with another score
- *hung*: commands over their time limit
- *leaked*: places that hold the API key, which errors of the servers repeat, and requests that
  followed a redirect

{date}, commit {commit or "unknown"}, seed {seed}, {trials} trials of each row, {seconds / 60:.0f} \
minutes.

"""


def write_rows(hub: Path) -> None:
    """Write a mirror of invented questions, as many as a trial asks."""
    rows = [
        {
            "id": f"test-{number:05}",
            "sent1": f"Patient {number} takes {number % 7 + 1} tablets. Which is the drug?",
            "sent2": "",
            **{f"ending{at}": f"Drug {(number * 7 + at) % 97}" for at in range(4)},
            "label": number % 4,
        }
        for number in range(NUM_SAMPLES)
    ]
    folder = hub / "GBaker" / "MedQA-USMLE-4-options-hf"
    folder.mkdir(parents=True)
    splits = {"test.json": rows, "train.json": rows[:1], "dev.json": rows[:1]}
    for name, taken in splits.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in taken))
    manifest = {
        "source": "GBaker/MedQA-USMLE-4-options-hf",
        "revision": None,
        "files": {
            name: {
                "sha256": sha256((folder / name).read_bytes()).hexdigest(),
                "bytes": (folder / name).stat().st_size,
            }
            for name in splits
        },
        "rows": {"default/test": len(rows), "default/train": 1, "default/validation": 1},
        "synthetic": True,
    }
    (folder / "medix-mirror.json").write_text(json.dumps(manifest))


def say(text: str) -> None:
    """Print at once: CI kills what is silent for long."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
