"""mp4 bytes: playable, as promised, the same each time; and what is not a video is said to be
none.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import av
import numpy as np
import pytest
from PIL import Image

from vidplat.errors import JobError
from vidplat.quality import psnr_db
from vidplat.workers.video import probe, to_frames, to_mp4, to_poster


def a_clip(frames: int = 9, rows: int = 64, columns: int = 64) -> np.ndarray:
    """A bright disc that drifts over a dark slope."""
    y, x = np.mgrid[:rows, :columns]
    shown = []
    for t in range(frames):
        disc = (x - columns / 3 - t) ** 2 + (y - rows / 2) ** 2 < (rows / 5) ** 2
        shown.append(np.where(disc[..., None], (230, 60, 40), np.stack([x, y, x * 0 + 40], -1)))
    return np.stack(shown).astype(np.uint8)


@pytest.mark.parametrize(
    ("frames", "rows", "columns", "fps"), [(33, 64, 64, 16), (1, 16, 48, 1), (5, 2, 2, 120)]
)
def test_a_file_holds_the_promised_frames_size_and_rate(
    frames: int, rows: int, columns: int, fps: int
) -> None:
    video = to_mp4(a_clip(frames, rows, columns), fps)
    facts = probe(video)

    assert (facts.num_frames, facts.height, facts.width, facts.fps) == (
        frames,
        rows,
        columns,
        float(fps),
    )
    with av.open(io.BytesIO(video)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_the_index_comes_before_the_pictures() -> None:
    video = to_mp4(a_clip(), 16)

    assert 0 < video.index(b"moov") < video.index(b"mdat")


def test_the_index_has_room_in_a_long_video() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 16, 16, 3), np.uint8)

    assert probe(to_mp4(noise, 24)).num_frames == 400


def test_the_same_frames_give_the_same_bytes() -> None:
    assert to_mp4(a_clip(), 16) == to_mp4(a_clip(), 16)


def test_colours_survive_the_trip() -> None:
    clip = a_clip()

    # Chroma at half resolution blurs the disc's edge; about 33 dB here.
    assert psnr_db(clip, to_frames(to_mp4(clip, 16))) > 30


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an mp4's boxes, one after another."""
    while data:
        length, name = struct.unpack(">I4s", data[:8])
        yield name.decode(), data[8:length]
        data = data[length:]


def content(data: bytes, *path: str) -> bytes:
    """Of the box that a path of names leads to."""
    for name in path:
        data = dict(boxes(data))[name]
        # fields before the boxes inside: version, flags and a count; those of a picture
        data = data[{"stsd": 8, "avc1": 78}.get(name, 0) :]
    return data


@pytest.mark.parametrize("size", [(64, 64), (720, 16)])
def test_the_file_and_the_stream_inside_name_all_of_their_colours(size: tuple[int, int]) -> None:
    video = to_mp4(a_clip(3, *size), 16)

    # primaries, transfer and matrix are those of BT.709, the range is limited
    colr = content(video, "moov", "trak", "mdia", "minf", "stbl", "stsd", "avc1", "colr")
    assert struct.unpack(">4sHHHB", colr) == (b"nclx", 1, 1, 1, 0)
    # and so they are in the stream alone, which knows nothing of the box
    with av.open(io.BytesIO(bare_stream(video)), format="h264") as container:
        told = next(container.decode(video=0))
    named = (told.color_primaries, told.color_trc, told.colorspace, told.color_range)
    assert tuple(map(int, named)) == (1, 1, 1, 1)


def bare_stream(video: bytes) -> bytes:
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        to_bare = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [out for packet in container.demux(stream) for out in to_bare.filter(packet)]
        return b"".join(map(bytes, packets))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3])
def test_pixels_are_stored_by_the_matrix_and_range_that_are_named(
    colour: tuple[int, int, int],
) -> None:
    plain = np.broadcast_to(np.array(colour, np.uint8), (1, 32, 32, 3))

    with av.open(io.BytesIO(to_mp4(plain, 16))) as container:
        stored = next(container.decode(video=0)).to_ndarray()

    # BT.709: Y = 0.2126 R + 0.7152 G + 0.0722 B; limited: Y 16 to 235, chroma 16 to 240
    red, _, blue = (level / 255 for level in colour)
    luma = float(np.dot((0.2126, 0.7152, 0.0722), colour)) / 255
    wanted = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748
    found = stored[16, 16], stored[32 + 4, 4], stored[32 + 8 + 4, 4]
    assert found == pytest.approx(wanted, abs=1.5)


def test_odd_sides_are_refused() -> None:
    with pytest.raises(JobError, match="even sides, the frames have 33x32"):
        to_mp4(a_clip(1, 32, 33), 16)


@pytest.mark.parametrize("junk", [b"", b"not a video", to_mp4(a_clip(), 16)[:300]])
def test_what_is_no_video_is_said_to_be_none(junk: bytes) -> None:
    with pytest.raises(JobError, match="not a playable video"):
        probe(junk)


def test_the_poster_is_the_middle_frame_as_jpeg() -> None:
    clip = a_clip()

    poster = Image.open(io.BytesIO(to_poster(clip)))

    assert (poster.format, poster.size) == ("JPEG", (64, 64))
    assert psnr_db(np.asarray(poster), clip[4]) > 30
