from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bench" / "stream_images.py"


@pytest.mark.long
def test_fifty_times_the_images_take_hardly_more_memory(tmp_path: Path) -> None:
    peaks = {}
    for num in (1_000, 50_000):
        argv = [sys.executable, str(SCRIPT), str(tmp_path / str(num)), str(num)]
        env = {**os.environ, "HF_HOME": str(tmp_path / "home")}
        # Written, then read twice: the first reading also prepares the table for `datasets`.
        printed = [
            subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout
            for _ in range(3)
        ]
        count, peak = printed[-1].split()
        assert int(count) == num
        peaks[num] = float(peak)

    assert peaks[50_000] <= 1.3 * peaks[1_000]
