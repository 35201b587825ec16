"""Frames become mp4 bytes and a poster; videos become frames and facts about them. PyAV, in memory.

H.264 (x264), yuv420p, index at the front so that browsers start at once. Colours are BT.709 in the
limited range, and the stream and the file's `colr` box say so: primaries, transfer, matrix, range.

The same frames give the same bytes with the same libraries, whatever the process's memory held
before: one encoder thread, no clock or version in the file, and x264 told to be `cpu-independent`.
By default it takes the macroblock tree's assembly, which on some processors reads past the end of a
row of blocks, into memory that nobody wrote; videos narrower than 128 pixels were seen to differ by
that. Told so, it takes the C form, and its choices are those of every processor. That costs up to
0.4 % of the bytes either way; turning the tree off costs 25 to 80 % more
(docs/decisions/0008-dependencies.md).

yuv420p needs even sides; a frame with an odd side is refused (models make multiples of 16).

`read_video` brings somebody else's video (source_video.py guards the door) to a spec's size and
rate:

    time     output frame k is the source frame on screen at k / fps seconds after the first;
             nothing is blended
    shape    turned upright, then the largest rectangle of the output's shape around the centre
    size     area average where it shrinks, bilinear where it grows; equal sizes are left as they
             are
    colours  to 8-bit full-range RGB of BT.709 (source_colours.py)
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from vidplat.config import InputConfig
from vidplat.errors import InputError, JobError
from vidplat.workers.source_colours import BT709, LIMITED, in_bt709, matrix_of
from vidplat.workers.source_video import opened, pictures, pixel_aspect, quarter_turns

CRF = "17"  # visually lossless for our sizes: about 45 dB on flipbook clips
DRAFT_CRF = "14"  # of frames that are compressed once more when the others are filled in
X264_PARAMS = "cpu-independent=1"  # the C form of the macroblock tree, see above
POSTER_QUALITY = 88


class VideoFacts(NamedTuple):
    """What a file really holds, found by decoding it."""

    width: int
    height: int
    num_frames: int
    fps: float


def to_mp4(frames: np.ndarray, fps: int, *, crf: str = CRF) -> bytes:
    """Compress (frames, rows, columns, 3) uint8 RGB. Raises `JobError` for odd sides."""
    rows, columns = frames.shape[1:3]
    if rows % 2 or columns % 2:
        raise JobError(f"yuv420p needs even sides, the frames have {columns}x{rows}")
    file = io.BytesIO()
    # Room for the index is kept at the front: moving it there afterwards (faststart) needs a named
    # file. Its tables take at most 24 bytes a frame here; what is left over is a `free` box.
    options = {"moov_size": str(4096 + 32 * len(frames)), "fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1
        stream.options = {
            "crf": crf,
            "preset": "veryfast",
            "threads": "1",
            "flags": "+bitexact",
            "x264-params": X264_PARAMS,
        }
        told = stream.codec_context  # to players: without all of them each guesses for itself
        told.colorspace = told.color_primaries = told.color_trc = BT709
        told.color_range = LIMITED
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED
            )
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
            fps = float(stream.average_rate or 0)
            return VideoFacts(context.width, context.height, count, fps)
    except (av.FFmpegError, IndexError) as problem:
        raise JobError(f"not a playable video: {problem}") from problem


def to_frames(video: bytes) -> np.ndarray:
    """All frames of a video as (frames, rows, columns, 3) uint8 RGB."""
    with av.open(io.BytesIO(video)) as container:
        shown = [
            frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
            for frame in container.decode(video=0)
        ]
    return np.stack(shown)


def read_video(
    source: bytes | BinaryIO,
    width: int,
    height: int,
    num_frames: int,
    fps: float,
    limits: InputConfig = InputConfig(),
) -> np.ndarray:
    """The first `num_frames` / `fps` seconds of it as (num_frames, height, width, 3) uint8 RGB.

    Holds the result and two source frames. The last frame is held for a moment when the source ends
    a little early. Raises InputError with the rest of a sentence ("is damaged: ...") when it cannot
    be read, or is too short.
    """
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    filled = 0
    with opened(source, limits) as (container, stream):
        tick_s = float(stream.time_base)
        slack_s = min(
            max(tick_s / 2, 0.001), 0.25 / fps
        )  # times are rounded to ticks, in mkv to milliseconds
        shown: np.ndarray | None = None  # the frame on screen, fitted once it is needed
        last: Any = None
        began = now_s = gap_s = 0.0
        for frame in pictures(container, stream, limits):
            at_s = tick_s * (frame.pts if frame.pts is not None else frame.dts or 0)
            began = at_s if last is None else began
            at_s = max(at_s - began, now_s)
            gap_s, now_s = at_s - now_s, at_s
            while last is not None and filled < num_frames and now_s > filled / fps + slack_s:
                shown = _fitted(last, stream, width, height) if shown is None else shown
                frames[filled] = shown
                filled += 1
            if filled == num_frames:
                return frames
            last, shown = frame, None
        ends_s = now_s + gap_s
        if last is None or (num_frames - 1) / fps > ends_s + 2 / fps + slack_s:
            raise InputError(f"lasts {ends_s:.2f} s, {(num_frames - 1) / fps:.2f} s are needed")
        frames[filled:] = _fitted(last, stream, width, height)
    return frames


def _fitted(frame: Any, stream: Any, width: int, height: int) -> np.ndarray:
    """One frame upright, cropped and scaled: (height, width, 3) uint8 RGB."""
    import cv2

    pixels: np.ndarray = np.rot90(
        frame.to_ndarray(format="rgb24", src_colorspace=matrix_of(frame)), quarter_turns(frame)
    )
    aspect = pixel_aspect(frame, stream)
    if quarter_turns(frame) % 2:
        aspect = 1 / aspect
    rows, columns = pixels.shape[:2]
    if columns * aspect * height > width * rows:  # wider than asked for
        kept = max(1, round(rows * width / height / aspect))
        left = (columns - kept) // 2
        pixels = pixels[:, left : left + kept]
    else:
        kept = max(1, min(rows, round(columns * aspect * height / width)))
        top = (rows - kept) // 2
        pixels = pixels[top : top + kept]
    if pixels.shape[:2] != (height, width):
        shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
        pixels = cv2.resize(
            np.ascontiguousarray(pixels),
            (width, height),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
    return in_bt709(pixels, frame)
