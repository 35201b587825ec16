"""What input videos cost intake, and what damaged ones do to it.

    python -m benchmarks.input_videos [--rows 20000] [--sources 500] [--damaged-s 60]

First a plan over that many rows with the fake model: made from text alone, all from one video, and
from so many different ones (64x64, two seconds, H.264). Then, for so many seconds, sound videos of
five kinds with up to 20 bytes changed at random are looked at and decoded as intake and a worker
would: each must end in frames or in one InputError.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.common import answer, head, options
from vidplat.config import Config, InputConfig, RunConfig
from vidplat.errors import InputError
from vidplat.platform import plan_only
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.workers.source_video import look_at
from vidplat.workers.video import read_video, to_mp4

KINDS = {
    "mp4": ("libx264", "yuv420p"),
    "mkv": ("libx264", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "mov": ("qtrle", "rgb24"),
    "avi": ("mpeg4", "yuv420p"),
}


def frames(count: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8: a slope that drifts."""
    y, x = np.mgrid[:64, :64]
    shown = [np.stack([2 * x + 3 * t, 2 * y, x + y], -1) % 256 for t in range(count)]
    return np.stack(shown).astype(np.uint8)


def sound_video(path: Path, codec: str, pixels: str) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=16)
        stream.width = stream.height = 64
        stream.pix_fmt = pixels
        for shown in frames(17):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format=pixels)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


def plans(folder: Path, rows: int, sources: int) -> dict[str, float]:
    """Processor seconds of one plan per way of naming sources, all threads together."""
    video = to_mp4(frames(33), 16)
    for number in range(sources):  # a box that players skip makes each file's content its own
        box = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        (folder / f"{number}.mp4").write_bytes(video + box)
    config = Config(
        catalog=f"sqlite:///{folder}/none.db",
        output=str(folder / "none"),
        run=RunConfig(local=True),
        model="fake",
    )
    with (folder / "0.mp4").open("rb") as file:  # the first look loads the decoder's library
        look_at(file, config.inputs)
    took = {}
    for name, places in (("text", 0), ("one source", 1), (f"{sources} sources", sources)):
        wanted: list[dict[str, Any]] = [{"prompt": "x", "seed": row} for row in range(rows)]
        if places:
            for row in wanted:
                row["input_video"] = f"{row['seed'] % places}.mp4"
        asked = folder / "rows.jsonl"
        asked.write_text("".join(json.dumps(row) + "\n" for row in wanted))
        began = time.process_time()
        plan_only(SubmitRequest(str(asked)), config, Listener())
        took[name] = round(time.process_time() - began, 2)
    return took


def damaged(sound: list[bytes], seconds: float) -> dict[str, Any]:
    """How many damaged files were tried and how they ended; any other exception goes through."""
    chance, ends, slowest = random.Random(1), Counter[str](), 0.0
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        data = bytearray(chance.choice(sound))
        for _ in range(chance.choice([1, 2, 5, 20])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            look_at(io.BytesIO(bytes(data)), InputConfig())
            read_video(bytes(data), 32, 32, 17, 16)
            ends["frames"] += 1
        except InputError:
            ends["refused"] += 1
        slowest = max(slowest, time.perf_counter() - began)
    return {"tried": ends.total(), **ends, "slowest_s": round(slowest, 2)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--sources", type=int, default=500)
    parser.add_argument("--damaged-s", type=float, default=60.0)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took = plans(folder, told.rows, told.sources)
        sound = [sound_video(folder / f"sound.{end}", *how) for end, how in KINDS.items()]
        ends = damaged(sound, told.damaged_s)
    print(head(f"{told.rows:,} rows planned, processor seconds", "input_videos"))
    for name, seconds in took.items():
        print(f"  {name:<14} {seconds:.2f} s")
    given = f"{ends.get('frames', 0):,} gave frames, the rest a sentence"
    print(f"{ends['tried']:,} damaged videos: {given}; slowest {ends['slowest_s']} s")
    answer("input_videos", rows=told.rows, plan_cpu_s=took, damaged=ends)


if __name__ == "__main__":
    main()
