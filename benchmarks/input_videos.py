"""What input videos cost intake, and what damaged ones do to it.

    python benchmarks/input_videos.py [--rows 20000] [--sources 500] [--damaged-s 60]

First a plan over that many rows with the fake model: made from text alone, all from one video, and
from so many different ones (64x64, two seconds, H.264). Then, for so many seconds, sound videos of
five kinds with up to 20 bytes changed at random are looked at and decoded as intake and a worker
would: each must end in frames or in one InputError. Prints a card, and one JSON line at the end.
"""

from __future__ import annotations

import argparse
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

from vidplat.config import CatalogConfig, Config, InputConfig, RunConfig, StoreConfig
from vidplat.errors import InputError
from vidplat.platform import Silence, SubmitRequest, plan_only
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
    return np.stack(
        [np.stack([2 * x + 3 * t, 2 * y, x + y], -1) % 256 for t in range(count)]
    ).astype(np.uint8)


def sound_videos(folder: Path) -> list[bytes]:
    made = []
    for suffix, (codec, pixels) in KINDS.items():
        path = folder / f"sound.{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=16)
            stream.width = stream.height = 64
            stream.pix_fmt = pixels
            for shown in frames(17):
                out.mux(
                    stream.encode(
                        av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format=pixels)
                    )
                )
            out.mux(stream.encode(None))
        made.append(path.read_bytes())
    return made


def intake(folder: Path, rows: int, sources: int) -> dict[str, float]:
    """Processor seconds of one plan per way of naming sources, all threads together."""
    video = to_mp4(frames(33), 16)
    for number in range(sources):  # a box that players skip makes each file's content its own
        (folder / f"{number}.mp4").write_bytes(
            video + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        )
    config = Config(
        catalog=CatalogConfig(f"sqlite:///{folder}/none.db"),
        store=StoreConfig(str(folder / "none")),
        run=RunConfig(local=True),
        model="fake",
    )
    took = {}
    with (folder / "0.mp4").open("rb") as file:  # the first look loads the decoder's library
        look_at(file, config.inputs)
    for name, places in (("text", 0), ("one source", 1), (f"{sources} sources", sources)):
        wanted = [
            {
                "prompt": "x",
                "seed": row,
                **({"input_video": f"{row % places}.mp4"} if places else {}),
            }
            for row in range(rows)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wanted))
        began = time.process_time()
        plan_only(SubmitRequest(str(folder / "rows.jsonl")), config, Silence())
        took[name] = round(time.process_time() - began, 2)
    return took


def damage(sound: list[bytes], seconds: float) -> dict[str, Any]:
    """How many damaged files were tried, and how they ended; any other exception ends the
    benchmark."""
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
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--sources", type=int, default=500)
    options.add_argument("--damaged-s", type=float, default=60.0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        took = intake(Path(folder), chosen.rows, chosen.sources)
        damaged = damage(sound_videos(Path(folder)), chosen.damaged_s)
    print(f"{chosen.rows:,} rows planned, processor seconds")
    for name, seconds in took.items():
        print(f"  {name:<14} {seconds:.2f} s")
    print(
        f"{damaged['tried']:,} damaged videos: {damaged.get('frames', 0):,} gave frames, the "
        "rest a sentence"
    )
    print(
        f"  slowest {damaged['slowest_s']} s; PyAV {av.__version__}, libavcodec "
        f"{av.library_versions['libavcodec']}"
    )
    print(
        json.dumps(
            {
                "benchmark": "input_videos",
                "rows": chosen.rows,
                "plan_cpu_s": took,
                "damaged": damaged,
            }
        )
    )


if __name__ == "__main__":
    main()
