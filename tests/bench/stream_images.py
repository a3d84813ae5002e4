"""Stream the samples of a benchmark of N synthetic images, and print the peak memory in MiB.

    python tests/bench/stream_images.py FOLDER N

Run as a process of its own: peak memory never goes down again.
"""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medix_eval.data.lm_task import open_task
from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import load_tasks
from medix_eval.records import Sample

TASK = """
task: many
class: !function medix_eval.lm_task.MedixTask
dataset_path: local/many
test_split: test
output_type: generate_until
num_fewshot: 0
fewshot_config: {sampler: first_n, samples: []}
doc_to_image: image
doc_to_text: "<image>{{ question }}"
doc_to_target: answer
metadata:
  version: 1
  medix: {kind: open, modality: image, data_class: public, licence: ours, num_samples: null}
"""
_ROWS_AT_ONCE = 500


def write(folder: Path, num: int) -> None:
    """Write the table: one small picture, a number behind its end, so that each is another."""
    path = folder / "data" / "local" / "many" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    text = datasets.Value("string")
    features = {"image": datasets.Image(), "question": text, "answer": text}
    schema = datasets.Features(features).arrow_schema
    out = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(out, format="PNG")
    image = out.getvalue()
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num, _ROWS_AT_ONCE):
            rows = [
                {
                    "image": {"bytes": image + b"%08d" % row, "path": None},
                    "question": f"Question {row}?",
                    "answer": "yes",
                }
                for row in range(start, min(start + _ROWS_AT_ONCE, num))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "many.yaml").write_text(TASK)


def main(folder: Path, num: int) -> None:
    """Write a benchmark, or read the one that is there from its first sample to its last."""
    if not (folder / "tasks").exists():
        write(folder, num)
        return
    file = load_tasks([folder / "tasks"]).tasks["many"]
    task = open_task(file, data_root=folder / "data")
    rows = range(len(task.rows))
    count = sum(
        isinstance(sample, Sample) and len(sample.images) == 1
        for sample in read_samples(task, rows, key=file.key, done=frozenset(), taken=set())
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(count, round(peak, 1))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
