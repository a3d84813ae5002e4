"""`make bench`: what the harness costs, as ratios within one run (machines are noisy).

Prints a Markdown table and writes `bench.json`; exits with 5 where a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from server import VERDICT, BenchServer
from workplace import Workplace

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / ".cache" / "SmolLM2-135M-Instruct"
_REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured ratio or time, and the bound it must keep."""

    name: str
    value: float
    detail: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


def start_up(_: Workplace) -> list[Figure]:
    """Seconds of light commands as multiples of an empty Python."""
    command = str(Path(sys.executable).with_name("medix-eval"))
    commands = {
        "pass": [sys.executable, "-c", "pass"],
        "--help": [command, "--help"],
        "tasks": [command, "tasks"],
    }
    runs: dict[str, list[float]] = {name: [] for name in commands}
    for _turn in range(11):
        for name, argv in commands.items():
            started = time.perf_counter()
            subprocess.run(argv, check=True, capture_output=True)
            runs[name].append(time.perf_counter() - started)
    empty = statistics.median(runs["pass"])
    figures = []
    for name, bound in (("--help", 25.0), ("tasks", 35.0)):
        median = statistics.median(runs[name])
        detail = f"{1000 * median:.0f} ms, an empty Python {1000 * empty:.0f} ms"
        ratio = f"`medix-eval {name}` / `python -c pass`"
        figures.append(Figure(name=ratio, value=median / empty, at_most=bound, detail=detail))
    return figures


def memory(place: Workplace) -> list[Figure]:
    """Peak memory over 20,000 image samples as a multiple of that over 1,000."""

    def peak_mb(server: BenchServer, num: int) -> tuple[float, float]:
        task = place.task(f"images{num}", num=num, side=96)
        # The first run also writes the cache of `datasets`, in batches of that library's own size.
        first, second = (place.harness(server, task, out=f"{task}-{turn}") for turn in range(2))
        return float(second["peak_rss_mb"]), float(first["peak_rss_mb"])

    with BenchServer() as server:
        few, few_first = peak_mb(server, 1_000)
        many, many_first = peak_mb(server, 20_000)
    return [
        Figure(
            name="peak RSS, 20,000 / 1,000 images",
            value=many / few,
            at_most=1.3,
            detail=f"{many:.0f} MB, {few:.0f} MB; with `datasets` writing its cache "
            f"{many_first:.0f} MB, {few_first:.0f} MB",
        )
    ]


def resume(place: Workplace) -> list[Figure]:
    """Seconds from the data being open to the first request, of a new run and of a resumed one."""
    task = place.task("resumed", num=10_016)
    figures = []
    with BenchServer() as server:
        for name, bound in (("a new run", 1.0), ("10,000 samples done", 2.0)):
            measured = place.harness(server, task, out="resumed")
            num, first_at, _ = server.count()
            figures.append(
                Figure(
                    name=f"seconds to the first request, {name}",
                    value=first_at - measured["opened_at"],
                    at_most=bound,
                    detail=f"counted from the data being open; {num} requests",
                )
            )
            for file in ("completions.jsonl", "verdicts.jsonl"):
                (path,) = (place.folder / "resumed").rglob(file)
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                path.write_text("".join(lines[:10_000]), encoding="utf-8")
    return figures


def client(place: Workplace) -> list[Figure]:
    """Requests a second and CPU a request, beside a bare session and stock lm-eval."""
    figures = []
    text = place.task("text", num=5_120)
    images = place.task("images", num=320, side=768)
    figures += _beside(place, text, "text", in_flight=64, service_s=0.2, at_least=0.95)
    figures += _beside(place, text, "text", in_flight=256, service_s=0.2, at_least=0.90)
    figures += _beside(place, images, "768×768 images", in_flight=64, service_s=0.2, at_least=0.90)
    figures += _beside(place, text, "text", in_flight=64, service_s=0.0, at_least=None)
    return figures


def _beside(
    place: Workplace,
    task: str,
    what: str,
    *,
    in_flight: int,
    service_s: float,
    at_least: float | None,
) -> list[Figure]:
    """Measure harness and bare session in turns, stock lm-eval once; compare the medians."""
    ours: list[Any] = []
    bare: list[Any] = []
    with BenchServer(service_s=service_s) as server:

        def measured(found: dict[str, float]) -> dict[str, float]:
            num, first_at, last_at = server.count()
            span_s = last_at - first_at + service_s
            first_s = first_at - found.get("opened_at", first_at)
            cpu_ms = 1000 * found["cpu_s"] / num
            return found | {"per_s": num / span_s, "cpu_ms": cpu_ms, "first_s": first_s}

        for turn in range(_REPEATS):
            argv = ("--concurrency", str(in_flight))
            out = f"out-{task}-{in_flight}-{service_s}-{turn}"
            ours.append(measured(place.harness(server, task, out=out, argv=argv)))
            bare.append(measured(place.bare(server, task, in_flight=in_flight)))
        stock = measured(place.stock(server, task, in_flight=in_flight))

    def median(runs: list[Any], key: str) -> float:
        return float(statistics.median(run[key] for run in runs))

    at = f"{what}, {in_flight} in flight, {1000 * service_s:.0f} ms"
    per_s, bare_per_s = median(ours, "per_s"), median(bare, "per_s")
    cpu_ms, bare_cpu_ms = median(ours, "cpu_ms"), median(bare, "cpu_ms")
    return [
        Figure(
            name=f"requests a second, ours / bare session ({at})",
            value=per_s / bare_per_s,
            at_least=at_least,
            detail=f"{per_s:.0f}, bare {bare_per_s:.0f}, stock lm-eval {stock['per_s']:.0f}",
        ),
        Figure(
            name=f"CPU a request, ours / bare session ({at})",
            value=cpu_ms / bare_cpu_ms,
            at_most=2.0,
            detail=f"{cpu_ms:.2f} ms, bare {bare_cpu_ms:.2f} ms, stock {stock['cpu_ms']:.2f} ms",
        ),
        Figure(
            name=f"CPU a request, ours / stock lm-eval ({at})",
            value=cpu_ms / stock["cpu_ms"],
            at_most=1.0,
            detail=f"scores and report {median(ours, 'reporting_cpu_s'):.1f} s, once; "
            f"first request after {median(ours, 'first_s'):.2f} s, stock "
            f"{stock['first_s']:.2f} s; peak RSS {median(ours, 'peak_rss_mb'):.0f} MB, stock "
            f"{stock['peak_rss_mb']:.0f} MB",
        ),
    ]


def judging(place: Workplace) -> list[Figure]:
    """Judge calls and time a sample: the published three turns, ours, ours with a warm cache."""
    num = 400
    task = place.task("judged", num=num)
    with BenchServer() as model, BenchServer(service_s=0.2, says=VERDICT) as judge:
        place.judged(model, judge, task, out="judged", argv=("--judge-concurrency", "64"))
        ours = judge.count()
        other = ("--set", "generation.max_tokens=2047", "--judge-concurrency", "64")
        place.judged(model, judge, task, out="judged", argv=other)
        warm = judge.count()
        place.turns(judge, task, in_flight=64)
        published = judge.count()
    ours_s, published_s = ours[2] - ours[1] + 0.2, published[2] - published[1] + 0.2
    return [
        Figure(
            name="judge calls a sample, ours",
            value=ours[0] / num,
            at_most=2.0,
            detail=f"published {published[0] / num:.1f}, each after the other",
        ),
        Figure(
            name="judge calls a sample, ours with a warm cache",
            value=warm[0] / num,
            at_most=0.0,
            detail=f"{num} samples",
        ),
        Figure(
            name="judging time, ours / three turns in a row (64 in flight, 200 ms)",
            value=ours_s / published_s,
            at_most=0.75,
            detail=f"{ours_s:.1f} s, {published_s:.1f} s",
        ),
    ]


def servers(place: Workplace) -> list[Figure]:
    """Answers a second of three servers as a multiple of one, each with 16 places of 200 ms."""
    task = place.task("shared", num=960)
    with ExitStack() as stack:
        opened = [stack.enter_context(BenchServer(service_s=0.2, slots=16)) for _ in range(3)]
        more = [argument for other in opened[1:] for argument in ("--base-url", other.url)]
        per_s = []
        for out, argv in (("one", ()), ("three", more)):
            place.harness(opened[0], task, out=out, argv=("--concurrency", "16", *argv))
            counts = [server.count() for server in opened]
            used = [count for count in counts if count[0]]
            span_s = max(last for *_, last in used) - min(first for _, first, _ in used) + 0.2
            per_s.append(sum(num for num, *_ in used) / span_s)
    return [
        Figure(
            name="answers a second, three servers / one",
            value=per_s[1] / per_s[0],
            at_least=2.6,
            detail=f"{per_s[1]:.0f}, {per_s[0]:.0f}; each has 16 places and takes 200 ms",
        )
    ]


def rewards(place: Workplace) -> list[Figure]:
    """Score 64 and 2,560 completions with a judge of 100 ms: published way, ours cold, warm."""
    figures = []
    with BenchServer(service_s=0.1, says=("YES", "NO")) as server:
        runs = [place.rewards(server, num=64, distinct=64) for _ in range(_REPEATS)]
        few = place.rewards(server, num=64, distinct=24)
        embedded = place.rewards(server, num=64, distinct=64, argv=("embed",))
    with BenchServer(service_s=0.1, says=("YES", "NO"), slots=64) as server:
        many = place.rewards(server, num=2_560, distinct=2_560)
    all_runs = [*runs, few, embedded, many]
    for what, found, cold, warm in (
        ("64 completions", min(runs, key=lambda run: run["cold_s"]), 15.0, 100.0),
        ("64 completions, 24 distinct", few, None, None),
        ("64 embeddings, MiniLM on one core", embedded, None, None),
    ):
        seconds = ", ".join(f"{found[key]:.3f} s" for key in ("published_s", "cold_s", "warm_s"))
        detail = f"one by one, cold, warm: {seconds}"
        if "open_s" in found:
            detail += f"; {found['open_s']:.2f} s once a run"
        for name, key, bound in (("cold", "cold_s", cold), ("warm", "warm_s", warm)):
            figures.append(
                Figure(
                    name=f"reward of {what}: one by one / ours, {name}",
                    value=found["published_s"] / found[key],
                    at_least=bound,
                    detail=detail,
                )
            )
    floor_s = 2_560 / 64 * 0.1
    return [
        *figures,
        Figure(
            name="reward of 2,560 distinct pairs / 4.0 s that 64 slots need",
            value=many["cold_s"] / floor_s,
            at_most=1.2,
            detail=f"{many['cold_s']:.2f} s, {many['cold_cpu_s']:.2f} s of it CPU; warm "
            f"{many['warm_s']:.2f} s; one by one {many['published_s']:.0f} s",
        ),
        Figure(
            name="rewards that differ between the ways",
            value=float(sum(not run["same"] for run in all_runs)),
            at_most=0.0,
            detail=f"{len(all_runs)} runs",
        ),
    ]


def answers(place: Workplace) -> list[Figure]:
    """Tokens a second of the transformers backend, beside a bare loop over batches of 16."""
    if not (MODEL / "config.json").is_file():
        raise FileNotFoundError(f"{MODEL}: `make real` makes this model")
    figures = []
    for length, what, bound in (("even", "one length", 0.95), ("mixed", "mixed lengths", 1.1)):
        found = place.answers(MODEL, length)
        per_s = {name: statistics.median(turns) for name, turns in found["per_s"].items()}
        figures.append(
            Figure(
                name=f"tokens a second, transformers backend / bare loop, answers of {what}",
                value=per_s["ours"] / per_s["bare"],
                at_least=bound,
                detail=f"{per_s['ours']:.0f}, {per_s['bare']:.0f}; {found['answers']} answers, "
                f"{found['tokens']['ours']} tokens, in turns on one core",
            )
        )
    return figures


def prompts(_: Workplace) -> list[Figure]:
    """Tokens that a judge is sent for a sample, by SmolLM2's tokenizer, where real rows are."""
    sys.path.append(str(ROOT / "tests" / "real"))
    from prompt_tokens import prompt_tokens  # noqa: PLC0415
    from raw_rows import place_of_real_rows  # noqa: PLC0415

    if (rows := place_of_real_rows()) is None:
        return []
    figures = []
    for task, most in (("medmcqa", 770), ("medqa", 1100), ("pubmedqa", 1370)):
        found = prompt_tokens(task, rows, MODEL)
        name = f"prompt tokens of two votes, {task}"
        shares = f"{found.all_share:.0%}", f"{found.models_share:.0%}"
        detail = f"{shares[0]} shared by all samples, {shares[1]} by all models on one"
        figures.append(Figure(name=name, value=found.a_sample, at_most=most, detail=detail))
    return figures


BENCHES: dict[str, Callable[[Workplace], list[Figure]]] = {
    "start": start_up,
    "memory": memory,
    "resume": resume,
    "client": client,
    "judging": judging,
    "servers": servers,
    "rewards": rewards,
    "answers": answers,
    "prompts": prompts,
}


def main() -> None:
    """Measure everything that is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "bench.json")
    asked = parser.parse_args()
    datasets.disable_progress_bars()
    figures: list[Figure] = []
    for name in asked.names or BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            figures += BENCHES[name](Workplace(Path(folder)))
    asked.out.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    lines = ["| what | measured | bound | |", "|---|---:|---:|---|"]
    for figure in figures:
        bound = figure.bound if figure.holds else f"{figure.bound} BROKEN"
        lines.append(f"| {figure.name} | {figure.value:.2f} | {bound} | {figure.detail} |")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(0 if all(figure.holds for figure in figures) else 5)


if __name__ == "__main__":
    main()
