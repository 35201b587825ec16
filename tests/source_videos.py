"""Small real videos as cameras, screen recorders and editors write them, made by PyAV: for tests of
input videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidplat.workers.video import to_mp4

LIMITED, PQ, HLG, BT709, BT2020 = 1, 16, 18, 1, 9  # numbers of ITU-T H.273


def counted(frames: int, rows: int = 32, columns: int = 32, step: int = 7) -> np.ndarray:
    """(frames, rows, columns, 3) uint8: frame t is plain grey of level 20 + step t, so a pixel
    tells its time."""
    levels = 20 + step * np.arange(frames)
    assert levels[-1] <= 255
    return np.broadcast_to(levels[:, None, None, None], (frames, rows, columns, 3)).astype(np.uint8)


def times_of(frames: np.ndarray, step: int = 7) -> list[int]:
    """The inverse of `counted`: which frame each one shows, by its middle pixel."""
    middle = frames[:, frames.shape[1] // 2, frames.shape[2] // 2].mean(axis=-1)
    return [round(float(level - 20) / step) for level in middle]


def a_video(
    path: Path,
    frames: np.ndarray | None = None,
    *,
    fps: int = 16,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    ticks_per_s: int | None = None,
    options: Mapping[str, str] = {},
    container: Mapping[str, str] = {},
    tags: Mapping[str, Any] = {},
    sound: bool = False,
) -> Path:
    """Write `frames` (default: 33 of `counted`) to `path`, whose suffix names the container.

    `ticks` are the frames' times, `ticks_per_s` to the second (default: one tick a frame); `tags`
    are set on the codec.
    """
    frames = counted(33) if frames is None else frames
    time_base = Fraction(1, ticks_per_s or fps)
    with av.open(str(path), "w", options=dict(container)) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        stream.thread_count = 1
        stream.options = (
            {"crf": "1", "preset": "ultrafast", **options} if codec == "libx264" else dict(options)
        )
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        listening = out.add_stream("aac", rate=44_100) if sound else None
        for index, shown in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(shown), format="rgb24" if shown.shape[-1] == 3 else "rgba"
            )
            if pixels not in ("rgb24", "rgba"):
                frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = index if ticks is None else ticks[index], time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if listening is not None:
            for start in range(0, int(44_100 * len(frames) / fps), 1024):
                heard = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                heard.sample_rate, heard.pts = 44_100, start
                out.mux(listening.encode(heard))
            out.mux(listening.encode(None))
    return path


def an_mp4(path: Path, frames: np.ndarray | None = None, fps: int = 16) -> Path:
    """One of our own videos: H.264 in BT.709, its index at the front."""
    path.write_bytes(to_mp4(counted(33) if frames is None else frames, fps))
    return path


def with_variable_rate(path: Path) -> Path:
    """33 frames in two seconds, shown for 30 ms and 90 ms by turns: frame 2 k appears at 120 k
    ms."""
    return a_video(
        path, ticks=[60 * (t // 2) * 2 + 30 * (t % 2) for t in range(33)], ticks_per_s=1000
    )


def with_odd_sides(path: Path) -> Path:
    return a_video(path, counted(33, 37, 53), codec="qtrle", pixels="rgb24")


def with_alpha(path: Path) -> Path:
    """.mov: QuickTime Animation; .webm: VP9 with a second stream inside for alpha."""
    seen = np.concatenate([counted(33), np.full((33, 32, 32, 1), 90, np.uint8)], axis=-1)
    if path.suffix == ".webm":
        return a_video(path, seen, codec="libvpx-vp9", pixels="yuva420p", options={"cpu-used": "8"})
    return a_video(path, seen, codec="qtrle", pixels="argb")


def with_hdr(path: Path, transfer: int = PQ) -> Path:
    return a_video(
        path,
        codec="libx265",
        pixels="yuv420p10le",
        options={"x265-params": "log-level=none:pools=none:frame-threads=1", "preset": "ultrafast"},
        tags={"color_trc": transfer, "color_primaries": BT2020, "colorspace": BT2020},
    )


def with_sound_only(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=44_100)
        for start in range(0, 44_100, 1024):
            heard = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            heard.sample_rate, heard.pts = 44_100, start
            out.mux(stream.encode(heard))
        out.mux(stream.encode(None))
    return path


def ten_minutes(path: Path) -> Path:
    """601 frames, one a second."""
    return a_video(path, np.repeat(counted(1, 16, 16), 601, axis=0), fps=1)


def cut(path: Path, whole: Path, share: float = 0.7) -> Path:
    """The first `share` of another file's bytes."""
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
