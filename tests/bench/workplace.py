"""The folder of one bench: mirrors of made-up rows, task files, and processes to measure."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from server import ANSWER, BenchServer

HERE = Path(__file__).parent
_TASK = """
task: {name}
class: !function medix_eval.lm_task.MedixTask
dataset_path: bench/{name}
test_split: test
output_type: generate_until
doc_to_text: "{text}"
doc_to_target: answer
num_fewshot: 0
fewshot_config: {{sampler: first_n, samples: []}}
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 2048}}
metadata:
  version: 1
  medix: {{kind: open, modality: {modality}, data_class: public, licence: ours, num_samples: null}}
"""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Makes what a bench needs and runs what it measures."""

    folder: Path

    def task(self, name: str, *, num: int, side: int | None = None) -> str:
        """Write a task of `num` rows, each with a picture of `side` pixels if one is given."""
        tasks = self.folder / "tasks"
        tasks.mkdir(exist_ok=True)
        text = "<image>{{ question }}" if side else "{{ question }}"
        fields = {"name": name, "text": text, "modality": "image" if side else "text"}
        yaml = _TASK.format(**fields)
        if side:
            yaml = yaml.replace("doc_to_text", "doc_to_image: image\ndoc_to_text")
        (tasks / f"{name}.yaml").write_text(yaml, encoding="utf-8")
        _write_rows(self.mirror / "bench" / name / "data", num=num, side=side)
        return name

    @property
    def mirror(self) -> Path:
        """What goes behind `--data-root`."""
        return self.folder / "mirror"

    def harness(
        self, server: BenchServer, task: str, *, out: str, argv: tuple[str, ...] = ()
    ) -> Any:
        """Run this harness on a task against a server; `argv` may name more of them."""
        return self._measured(
            "driver.py",
            *("--model", "openai:scripted", "--base-url", server.url, "--protocol", "rules"),
            *("--tasks", task, "--include-path", str(self.folder / "tasks")),
            *("--data-root", str(self.mirror), "--out", str(self.folder / out), *argv),
        )

    def judged(
        self, model: BenchServer, judge: BenchServer, task: str, *, out: str, argv: tuple[str, ...]
    ) -> Any:
        """Run this harness on a task with a judge."""
        return self._measured(
            "driver.py",
            *("--model", "openai:scripted", "--base-url", model.url, "--tasks", task),
            *("--judge", "openai:scripted", "--judge-base-url", judge.url),
            *("--include-path", str(self.folder / "tasks"), "--data-root", str(self.mirror)),
            *("--out", str(self.folder / out), *argv),
        )

    def turns(self, judge: BenchServer, task: str, *, in_flight: int) -> Any:
        """Ask a judge three times in a row for every sample, as the published way does."""
        rows = self.mirror / "bench" / task
        return self._measured("bare.py", judge.url, str(rows), str(in_flight), "3")

    def bare(self, server: BenchServer, task: str, *, in_flight: int) -> Any:
        """Post the same requests through one bare session."""
        rows = self.mirror / "bench" / task
        return self._measured("bare.py", server.url, str(rows), str(in_flight))

    def stock(self, server: BenchServer, task: str, *, in_flight: int) -> Any:
        """Run stock lm-eval on the same task file."""
        tasks = str(self.folder / "tasks")
        return self._measured("stock.py", server.url, tasks, task, str(in_flight))

    def rewards(
        self, server: BenchServer, *, num: int, distinct: int, argv: tuple[str, ...] = ()
    ) -> Any:
        """Score completions with this judge: the published way, cold and warm."""
        self.mirror.mkdir(exist_ok=True)
        return self._measured("rewards.py", server.url, str(num), str(distinct), *argv)

    def answers(self, model: Path, length: str) -> Any:
        """Let a checkpoint answer on one core: a bare `generate` loop and ours, in turns."""
        self.mirror.mkdir(exist_ok=True)
        return self._measured("answers.py", str(model), length, OMP_NUM_THREADS="1")

    def _measured(self, script: str, *argv: str, **more: str) -> Any:
        environment = os.environ | more
        environment |= {
            "HF_DATASETS_CACHE": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OPENAI_API_KEY": "none",
        }
        done = subprocess.run(
            [sys.executable, str(HERE / script), *argv],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.mirror,
            env=environment,
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def _write_rows(folder: Path, *, num: int, side: int | None) -> None:
    folder.mkdir(parents=True)
    noise = random.Random(num)  # noqa: S311 (no secret)
    features = {"question": datasets.Value("string"), "answer": datasets.Value("string")}
    if side:
        features["image"] = datasets.Image()

    def row(number: int) -> dict[str, object]:
        texts: dict[str, object] = {"question": f"What is number {number}?", "answer": ANSWER}
        if not side:
            return texts
        out = io.BytesIO()
        # A smooth picture with some noise: as large on disk as a photograph of this size.
        small = Image.frombytes("L", (side // 4, side // 4), noise.randbytes((side // 4) ** 2))
        small.resize((side, side)).convert("RGB").save(out, format="JPEG")
        return texts | {"image": {"bytes": out.getvalue(), "path": None}}

    for shard, start in enumerate(range(0, num, 1_000)):
        part = [row(number) for number in range(start, min(num, start + 1_000))]
        table = datasets.Dataset.from_list(part, features=datasets.Features(features))
        # The hub writes datasets of images in small row groups too.
        table.to_parquet(folder / f"test-{shard:05d}.parquet", batch_size=100)
