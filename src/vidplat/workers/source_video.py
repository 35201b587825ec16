"""Somebody else's video: opened safely, and looked at once before any job is made of it.

Nothing is taken on trust. The kind of file is told to FFmpeg (containers.py) instead of guessed,
only a few codecs are decoded, a container can open nothing but itself (no protocol is on the list,
not even files), and bytes, seconds, frames and pixels are bounded by `config.InputConfig`.

`look_at` reads all packets, which finds damage, the length and the times of frames, and decodes the
first two frames, which tell size, colours and orientation. It does not decode the rest: a picture
that is broken in the middle is found by the worker. What is refused and what is converted is argued
in docs/decisions/0010-input-videos.md.

Left to others: colours (source_colours.py), frames of another size and rate (video.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import av
import numpy as np

from vidplat.config import InputConfig
from vidplat.errors import InputError, printable
from vidplat.workers.containers import kind_of
from vidplat.workers.source_colours import check_colours

#: FFmpeg's decoders that are used; the others, several hundred, stay shut.
DECODERS = (
    "h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video", "prores",
    "dnxhd", "mjpeg",
    "png", "qtrle", "ffv1", "rawvideo",
)  # fmt: skip

VARIABLE_RATE = "a variable frame rate: the frame on screen at each moment is used"
ODD_SIDES = "odd sides: it is cropped and scaled to the size asked for"


@dataclass(frozen=True)
class SourceFacts:
    """What a usable source holds."""

    width: int  # as shown: upright, with square pixels
    height: int
    seconds: float
    frames: int
    notes: tuple[str, ...] = ()  # what will be converted; read on from "with"


def look_at(file: BinaryIO, limits: InputConfig) -> SourceFacts:
    """What the video holds, or InputError with the rest of a sentence ("is truncated: ...") why it
    cannot be used."""
    with opened(file, limits) as (container, stream):
        _check_length((container.duration or 0) / av.time_base, limits)
        ticks, last_ticks = _times(container, stream, limits)
        seconds = float((int(ticks[-1] - ticks[0]) + last_ticks) * stream.time_base)
        _check_length(seconds, limits)
    with opened(file, limits) as (container, stream):
        first = list(islice(pictures(container, stream, limits), 2))
        if len(first) < 2 or len(ticks) < 2:
            raise InputError("has one frame only: a source needs at least two")
        width, height = _shown_size(first[0], stream)
    notes = []
    if not _is_steady(ticks):
        notes.append(VARIABLE_RATE)
    if first[0].width % 2 or first[0].height % 2:
        notes.append(ODD_SIDES)
    return SourceFacts(width, height, seconds, len(ticks), tuple(notes))


@contextmanager
def opened(source: bytes | BinaryIO, limits: InputConfig) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and video stream, their headers checked. Raises InputError as `look_at`."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    kind = kind_of(file)
    try:
        container = av.open(file, format=kind, options=_options(limits), metadata_errors="replace")
    except (av.FFmpegError, ValueError, OverflowError) as problem:
        raise _damaged(problem) from problem
    with container:
        pictures_of = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not pictures_of:
            raise InputError("has no video stream")
        stream = pictures_of[0]
        context = stream.codec_context
        if context is None or context.name not in DECODERS:
            name = "unknown" if context is None else context.name
            raise InputError(
                f"uses the codec {printable(name, 40)}, which is not read: H.264, HEVC, VP9 and "
                "AV1 are"
            )
        context.thread_count = 1
        context.options = _options(limits)
        _check_size(context.width, context.height, limits)
        if stream.metadata.get("alpha_mode") == "1":
            raise _has_alpha()
        check_colours(context)
        yield container, stream


def pictures(container: Any, stream: Any, limits: InputConfig) -> Iterator[Any]:
    """PyAV's frames in the order they are shown, each checked. Raises InputError as `look_at`."""
    try:
        for number, frame in enumerate(container.decode(stream)):
            if number >= limits.max_frames:
                raise _too_many(limits)
            if frame.is_corrupt:
                raise InputError(f"is damaged: frame {number + 1} cannot be decoded")
            _check_size(frame.width, frame.height, limits)
            check_colours(frame)
            if any(component.is_alpha for component in frame.format.components):
                raise _has_alpha()
            if frame.interlaced_frame:
                raise InputError("is interlaced: deinterlace it first")
            yield frame
    except (av.FFmpegError, OverflowError) as problem:
        raise _damaged(problem) from problem


def pixel_aspect(frame: Any, stream: Any) -> float:
    """Width over height of one pixel as stored, before any rotation."""
    told = stream.sample_aspect_ratio
    ratio = float(told) if told else 1.0
    return ratio if 0.1 <= ratio <= 10.0 else 1.0


def quarter_turns(frame: Any) -> int:
    """Turns by 90 degrees, counter-clockwise, after which the picture is upright: 0 to 3."""
    return round(int(frame.rotation) / 90) % 4


# --- checks ---------------------------------------------------------------------------------------


def _options(limits: InputConfig) -> dict[str, str]:
    return {
        "protocol_whitelist": "none",
        "format_whitelist": "mov,matroska,avi",
        "codec_whitelist": ",".join(DECODERS),
        "max_pixels": str(limits.max_frame_pixels),
        "threads": "1",
    }


def _is_cover(stream: Any) -> bool:
    """Album art: a picture of an audio file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _times(container: Any, stream: Any, limits: InputConfig) -> tuple[np.ndarray, int]:
    """Times of all frames, rising, and how long the last is shown, in ticks of the stream."""
    ticks: list[int] = []
    latest, shown_for = -(2**63), 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise InputError(f"is damaged or truncated after {len(ticks):,} frames")
            at = packet.pts if packet.pts is not None else packet.dts
            if at is None:
                raise InputError("has frames without a time")
            ticks.append(at)
            if at > latest:
                latest, shown_for = at, packet.duration or 0
            if len(ticks) > limits.max_frames:
                raise _too_many(limits)
    except (av.FFmpegError, OverflowError) as problem:
        raise _damaged(problem) from problem
    if not ticks:
        raise InputError("has no frames: it is damaged or truncated")
    rising = np.sort(np.asarray(ticks, dtype=np.int64))
    usual = int(np.median(np.diff(rising))) if len(rising) > 1 else 0
    return rising, shown_for or usual


def _is_steady(ticks: np.ndarray) -> bool:
    """True when all frames are shown equally long, but for the rounding of times to ticks."""
    gaps = np.diff(ticks)
    return bool(gaps.max() - gaps.min() <= max(2, 0.02 * float(np.median(gaps))))


def _shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    width, height = max(1, round(frame.width * pixel_aspect(frame, stream))), frame.height
    return (height, width) if quarter_turns(frame) % 2 else (width, height)


def _check_length(seconds: float, limits: InputConfig) -> None:
    if seconds > limits.max_seconds:
        raise InputError(
            f"lasts {seconds:,.1f} s, at most {limits.max_seconds:g} s are taken: cut it "
            "(inputs.max_seconds)"
        )


def _check_size(width: int, height: int, limits: InputConfig) -> None:
    if width < 1 or height < 1:
        raise InputError("is damaged: its frames have no size")
    if width * height > limits.max_frame_pixels:
        raise InputError(
            f"has frames of {width}x{height}, at most {limits.max_frame_pixels:,} pixels are "
            "taken: "
            "scale it down (inputs.max_frame_pixels)"
        )


def _has_alpha() -> InputError:
    return InputError("has an alpha channel: lay it over the background you want first")


def _too_many(limits: InputConfig) -> InputError:
    return InputError(f"has more than {limits.max_frames:,} frames: cut it (inputs.max_frames)")


def _damaged(problem: Exception) -> InputError:
    said = getattr(problem, "strerror", None) or type(problem).__name__
    return InputError(f"cannot be decoded ({printable(said, 80)}): it is damaged or truncated")
