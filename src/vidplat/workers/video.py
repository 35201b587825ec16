"""Frames become mp4 bytes and a poster; mp4 bytes become facts about them. PyAV, in memory.

H.264 (x264), yuv420p, BT.709, index at the front so that browsers start at once. One encoder thread and
no clock or version in the file: the same frames give the same bytes with the same libraries.

yuv420p needs even sides; a frame with an odd side is refused (models make multiples of 16).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from vidplat.errors import JobError

CRF = "17"  # visually lossless for our sizes: about 45 dB on flipbook clips
POSTER_QUALITY = 88


@dataclass(frozen=True)
class VideoFacts:
    """What a file really holds, found by decoding it."""

    width: int
    height: int
    num_frames: int
    fps: float
    codec: str
    pixel_format: str
    size_bytes: int


def to_mp4(frames: np.ndarray, fps: int) -> bytes:
    """Compress (frames, rows, columns, 3) uint8 RGB. Raises `JobError` for odd sides."""
    rows, columns = frames.shape[1:3]
    if rows % 2 or columns % 2:
        raise JobError(f"yuv420p needs even sides, the frames have {columns}x{rows}")
    file = io.BytesIO()
    # Room for the index is kept at the front: moving it there afterwards (faststart) needs a named file.
    # Its tables take at most 24 bytes a frame here; what is left over is a `free` box.
    options = {"moov_size": str(4096 + 32 * len(frames)), "fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1
        stream.options = {"crf": CRF, "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
        stream.codec_context.colorspace = 1  # BT.709, told to players as well
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def to_poster(frames: np.ndarray) -> bytes:
    """JPEG bytes of the middle frame."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frames[len(frames) // 2]).save(file, "JPEG", quality=POSTER_QUALITY)
    return file.getvalue()


def probe(video: bytes) -> VideoFacts:
    """Decode all of `video` and count. Raises `JobError` when it is not a playable video."""
    try:
        with av.open(io.BytesIO(video)) as container:
            stream = container.streams.video[0]
            count = sum(1 for _ in container.decode(stream))
            context = stream.codec_context
            return VideoFacts(
                width=context.width,
                height=context.height,
                num_frames=count,
                fps=float(stream.average_rate or 0),
                codec=context.name,
                pixel_format=str(context.pix_fmt),
                size_bytes=len(video),
            )
    except (av.FFmpegError, IndexError) as problem:
        raise JobError(f"not a playable video: {problem}") from problem


def to_frames(video: bytes) -> np.ndarray:
    """All frames of a video as (frames, rows, columns, 3) uint8 RGB."""
    with av.open(io.BytesIO(video)) as container:
        shown = [frame.to_ndarray(format="rgb24", src_colorspace="ITU709") for frame in container.decode(video=0)]
    return np.stack(shown)
