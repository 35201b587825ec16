"""Which kind of video file some bytes are, and whether all is there: by its headers alone.

    mp4, mov     boxes (length, name) from end to end, one of them `moov`, the index
    mkv, webm    an EBML header and one Segment, which says its length unless it was streamed
    avi          RIFF, which says its length

FFmpeg opens a file that ends early and plays what is there; a length that reaches beyond the end of
the file tells. Only these kinds are read, and FFmpeg is told which one it is, so that it never
guesses at a playlist.

Left to others: everything inside (source_video.py). A cut streamed Segment is not noticed.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from vidplat.errors import InputError

MOST_BOXES = 200_000  # at the top level; a fragmented file has two a second or so
_ISO = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_CUT = "is truncated: {missing:,} of its bytes are missing; copy it again"


def kind_of(file: BinaryIO) -> str:
    """FFmpeg's name of the kind: mov, matroska or avi. Raises InputError (the rest of a sentence)
    for others, and when the file ends before its own headers say. The file is left at its start."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(64)
    if head[4:8] in _ISO:
        kind, end = "mov", _end_of_boxes(file, size)
    elif head.startswith(_EBML):
        kind, end = "matroska", _end_of_segment(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        kind, end = "avi", 8 + int.from_bytes(head[4:8], "little")
    else:
        what = "is empty" if size == 0 else "is not a video that can be read"
        raise InputError(f"{what}: mp4, mov, mkv, webm and avi are")
    if end > size:
        raise InputError(_CUT.format(missing=end - size))
    file.seek(0)
    return kind


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    at, has_index = 0, False
    for _ in range(MOST_BOXES):
        if at + 8 > size:
            break
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        has_index |= head[4:8] == b"moov"
        if length == 0:  # to the end of the file
            at = size
        elif length < 8:
            raise InputError("is damaged: its boxes do not follow each other")
        at += length
    if at <= size and not has_index:
        raise InputError(
            "has no index (moov): it is truncated, or its recording was never finished"
        )
    return at


def _end_of_segment(head: bytes) -> int:
    """Where the Segment ends; 0 when it does not say, or begins too late to be seen."""
    length, at = _number(head, len(_EBML))
    at += length
    if head[at : at + 4] != _SEGMENT:
        return 0
    length, start = _number(head, at + 4)
    return start + length if length else 0


def _number(data: bytes, at: int) -> tuple[int, int]:
    """(value, place behind it) of EBML's number of 1 to 8 bytes; 0 for all ones, "unknown"."""
    if at >= len(data) or data[at] == 0:
        return 0, len(data)
    width = 9 - data[at].bit_length()
    bits = 7 * width
    value = int.from_bytes(data[at : at + width], "big") & ((1 << bits) - 1)
    return (0 if value == (1 << bits) - 1 else value), at + width
