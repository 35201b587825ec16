"""The same inputs give the same bytes, whatever the memory that a process is given held before.

The C library fills fresh and freed memory with a byte of the tester's choice (MALLOC_PERTURB_, read
when a process starts), so processes that were told different bytes differ wherever something is
read before it was written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.workers.same_frames import cut, panned, smooth
from tests.workers.same_job import hashes_of_videos
from vidplat.workers import video

ROOT = Path(__file__).parents[2]
UNTOLD = ""  # memory is as it comes


def told_by_processes(module: str, *arguments: str, fills: Sequence[str]) -> list[dict[str, str]]:
    """What `module` prints, run once for each of `fills`, two at a time."""

    def told(fill: str) -> dict[str, str]:
        environment = dict(os.environ) | {"MALLOC_PERTURB_": fill}
        if fill == UNTOLD:
            del environment["MALLOC_PERTURB_"]
        command = [sys.executable, "-m", module, *arguments]
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        hashes: dict[str, str] = json.loads(ended.stdout)
        return hashes

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(told, fills))


def differing(tellings: list[dict[str, str]]) -> list[str]:
    """The names that are not told alike by all."""
    return [name for name in tellings[0] if len({telling[name] for telling in tellings}) > 1]


def test_frames_are_encoded_decoded_and_filled_in_alike_whatever_memory_held() -> None:
    tellings = told_by_processes("tests.workers.same_frames", fills=(UNTOLD, "85", "170"))

    assert len(tellings[0]) > 80
    assert differing(tellings) == []


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (80, 112), (128, 128)])
@pytest.mark.parametrize("clip", [smooth, panned, cut])
def test_frames_are_encoded_alike_with_and_without_the_instructions_of_this_processor(
    clip: Callable[[int, int, int], np.ndarray],
    shape: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = clip(17, *shape)
    with_all = video.to_mp4(frames, 16)

    monkeypatch.setattr(video, "X264_PARAMS", f"{video.X264_PARAMS}:asm=0")

    assert video.to_mp4(frames, 16) == with_all


def test_a_job_has_the_same_mp4_bytes_here_and_in_another_process_whole_and_handed_over(
    tiny_wan: Path,
) -> None:
    here = hashes_of_videos(str(tiny_wan))
    (there,) = told_by_processes("tests.workers.same_job", str(tiny_wan), fills=("170",))

    assert set(here) == {"whole", "draft", "handed over"}
    assert differing([here, there]) == []


@pytest.mark.thorough
def test_a_job_has_the_same_mp4_bytes_in_ten_processes_whole_and_handed_over(
    tiny_wan: Path,
) -> None:
    fills = (UNTOLD, "1", "2", "15", "85", "127", "128", "170", "240", "255")
    tellings = told_by_processes("tests.workers.same_job", str(tiny_wan), fills=fills)

    assert len(tellings) == 10
    assert set(tellings[0]) == {"whole", "draft", "handed over"}
    assert differing(tellings) == []
