"""`make bench`: what the harness costs, as ratios within one run (machines are noisy).

Prints a Markdown table and writes `bench.json`; exits with 5 where a bound is broken.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
from PIL import Image
from server import BenchServer

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")
TASK = """
task: bench_vqa
class: !function medix_eval.lm_task.MedixTask
dataset_path: bench/vqa
test_split: test
output_type: generate_until
doc_to_image: image
doc_to_text: "<image>{{ question }}"
doc_to_target: answer
num_fewshot: 0
fewshot_config: {sampler: first_n, samples: []}
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 2048}
metadata:
  version: 1
  medix: {kind: open, modality: image, data_class: public, licence: ours, num_samples: null}
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured ratio or time, and the bound it must keep."""

    name: str
    value: float
    bound: float
    detail: str

    @property
    def holds(self) -> bool:
        return self.value <= self.bound


def start_up() -> list[Figure]:
    """Seconds of light commands as multiples of an empty Python."""
    runs: dict[str, list[float]] = {"pass": [], "--help": [], "tasks": []}
    command = str(Path(sys.executable).with_name("medix-eval"))
    commands = {
        "pass": [sys.executable, "-c", "pass"],
        "--help": [command, "--help"],
        "tasks": [command, "tasks"],
    }
    for _ in range(11):
        for name, argv in commands.items():
            started = time.perf_counter()
            subprocess.run(argv, check=True, capture_output=True)
            runs[name].append(time.perf_counter() - started)
    empty = statistics.median(runs["pass"])
    figures = []
    for name, bound in (("--help", 25.0), ("tasks", 35.0)):
        median = statistics.median(runs[name])
        detail = f"{1000 * median:.0f} ms, an empty Python {1000 * empty:.0f} ms"
        figures.append(
            Figure(
                name=f"`{name}` / `python -c pass`",
                value=median / empty,
                bound=bound,
                detail=detail,
            )
        )
    return figures


def memory(folder: Path) -> list[Figure]:
    """Peak memory over 20,000 image samples as a multiple of that over 1,000."""
    peaks = {}
    with BenchServer() as server:
        for num in (1_000, 20_000):
            mirror = make_mirror(folder / f"mirror{num}", num=num)
            peaks[num] = drive(folder, mirror, server, out=folder / f"out{num}")["peak_rss_mb"]
    detail = f"{peaks[20_000]:.0f} MB, {peaks[1_000]:.0f} MB"
    value = peaks[20_000] / peaks[1_000]
    return [Figure(name="peak RSS, 20,000 / 1,000 images", value=value, bound=1.3, detail=detail)]


def resume(folder: Path) -> list[Figure]:
    """Seconds from the data being open to the first request, of a new run and of a resumed one."""
    mirror = make_mirror(folder / "mirror10016", num=10_016)
    out = folder / "resumed"
    with BenchServer() as server:
        fresh = first_request_s(drive(folder, mirror, server, out=out), server)
        for name in ("completions.jsonl", "verdicts.jsonl"):
            (path,) = out.rglob(name)
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(lines[:10_000]), encoding="utf-8")
        again = first_request_s(drive(folder, mirror, server, out=out), server)
    return [
        Figure(
            name="seconds to the first request, a new run",
            value=fresh[0],
            bound=1.0,
            detail=f"counted from the data being open; {fresh[1]} requests",
        ),
        Figure(
            name="seconds to the first request, 10,000 samples done",
            value=again[0],
            bound=2.0,
            detail=f"counted from the data being open; {again[1]} requests",
        ),
    ]


def first_request_s(measured: dict[str, float], server: BenchServer) -> tuple[float, int]:
    """Return the seconds from the data being open to the first request, and their number."""
    requests, first_at = server.count()
    if first_at is None:
        raise RuntimeError("the run sent nothing")
    return first_at - measured["opened_at"], requests


def drive(folder: Path, mirror: Path, server: BenchServer, *, out: Path) -> dict[str, float]:
    """Run one evaluation in a process of its own, and measure it."""
    environment = os.environ | {
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    argv = [
        *("--model", "openai:scripted", "--base-url", server.url, "--protocol", "rules"),
        *("--tasks", "bench_vqa", "--include-path", str(folder / "tasks")),
        *("--data-root", str(mirror), "--out", str(out)),
    ]
    command = [sys.executable, str(DRIVER), *argv]
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_mirror(folder: Path, *, num: int) -> Path:
    """Write a dataset of `num` small JPEG images, each different."""
    noise = random.Random(num)  # noqa: S311 (no secret)
    rows = folder / "bench" / "vqa"
    (rows / "data").mkdir(parents=True)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )

    def row(number: int) -> dict[str, object]:
        out = io.BytesIO()
        Image.frombytes("L", (96, 96), noise.randbytes(96 * 96)).save(out, format="JPEG")
        image = {"bytes": out.getvalue(), "path": None}
        return {"image": image, "question": f"What is number {number}?", "answer": "a lesion"}

    for shard, start in enumerate(range(0, num, 1_000)):
        part = [row(number) for number in range(start, min(num, start + 1_000))]
        table = datasets.Dataset.from_list(part, features=features)
        # The hub writes datasets of images in small row groups too.
        table.to_parquet(rows / "data" / f"test-{shard:05d}.parquet", batch_size=100)
    return folder


def main() -> None:
    """Measure everything that is named, or all."""
    figures_of: dict[str, Callable[[Path], list[Figure]]] = {
        "start": lambda _: start_up(),
        "memory": memory,
        "resume": resume,
    }
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *figures_of], default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "bench.json")
    asked = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks").mkdir()
        (Path(folder) / "tasks" / "bench_vqa.yaml").write_text(TASK, encoding="utf-8")
        for name in asked.names or figures_of:
            figures += figures_of[name](Path(folder))
    asked.out.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    lines = ["| what | measured | bound | |", "|---|---:|---:|---|"]
    for figure in figures:
        held = "" if figure.holds else " BROKEN"
        lines.append(
            f"| {figure.name} | {figure.value:.2f} | {figure.bound:g}{held} | {figure.detail} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(0 if all(figure.holds for figure in figures) else 5)


if __name__ == "__main__":
    main()
