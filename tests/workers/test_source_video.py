"""Somebody else's videos: what is taken, what is converted, what is refused and in which words."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import source_videos as videos
from tests.source_videos import a_video, an_mp4, counted, cut, times_of
from vidplat.config import InputConfig
from vidplat.errors import InputError
from vidplat.quality import psnr_db
from vidplat.workers.source_video import ODD_SIDES, VARIABLE_RATE, SourceFacts, look_at
from vidplat.workers.video import read_video, to_frames, to_mp4

LIMITS = InputConfig()


def looked(path: Path, limits: InputConfig = LIMITS) -> SourceFacts:
    with path.open("rb") as file:
        return look_at(file, limits)


def refusal(path: Path, limits: InputConfig = LIMITS) -> str:
    with pytest.raises(InputError) as caught:
        looked(path, limits)
    if "lasts" not in str(
        caught.value
    ):  # a worker that is given the file all the same says no as well
        with pytest.raises(InputError):
            read_video(path.read_bytes(), 16, 16, 33, 16, limits)
    return str(caught.value)


# --- taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "qtrle"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
    ],
)
def test_the_usual_kinds_of_files_are_taken(tmp_path: Path, name: str, codec: str) -> None:
    pixels = "rgb24" if codec == "qtrle" else "yuv420p"
    found = looked(a_video(tmp_path / name, codec=codec, pixels=pixels))

    assert (found.width, found.height, found.frames, found.notes) == (32, 32, 33, ())
    assert found.seconds == pytest.approx(33 / 16, abs=0.002)  # mkv counts milliseconds


def test_sound_and_an_index_at_the_end_do_no_harm(tmp_path: Path) -> None:
    assert looked(a_video(tmp_path / "a.mp4", sound=True)).frames == 33
    assert (
        looked(a_video(tmp_path / "b.mp4", sound=True, container={"movflags": "faststart"})).frames
        == 33
    )
    assert looked(an_mp4(tmp_path / "c.mp4")).frames == 33


def test_a_title_in_an_old_encoding_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Gr??e"
        stream = out.add_stream("libx264", rate=16)
        stream.width = stream.height = 32
        for pixels in counted(33):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Gr??e", b"Gr\xf6\xdfe"))

    assert looked(path).frames == 33


def test_variable_rate_and_odd_sides_are_taken_and_told(tmp_path: Path) -> None:
    assert looked(videos.with_variable_rate(tmp_path / "a.mp4")).notes == (VARIABLE_RATE,)
    odd = looked(videos.with_odd_sides(tmp_path / "a.mov"))
    assert (odd.width, odd.height, odd.notes) == (53, 37, (ODD_SIDES,))


def test_rounding_of_times_is_not_a_variable_rate(tmp_path: Path) -> None:
    # given 24 frames a second in a container that counts milliseconds: 41, 42, 42, 41, ...
    assert looked(a_video(tmp_path / "a.mkv", fps=24)).notes == ()


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp4", "fast.mp4", "mkv", "webm", "avi"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_truncated_file_is_refused_wherever_it_ends(
    tmp_path: Path, kind: str, share: float
) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(kind, "libx264")
    container = {"movflags": "faststart"} if kind == "fast.mp4" else {}
    whole = a_video(tmp_path / f"whole.{kind}", codec=codec, container=container)

    said = refusal(cut(tmp_path / f"cut.{kind}", whole, share))

    assert "truncated" in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: videos.with_sound_only(folder / "a.mp4"), "has no video stream"),
        (
            lambda folder: videos.with_alpha(folder / "a.mov"),
            "has an alpha channel: lay it over the background",
        ),
        (
            lambda folder: videos.with_alpha(folder / "a.webm"),
            "has an alpha channel: lay it over the background",
        ),
        (
            lambda folder: videos.with_hdr(folder / "a.mp4"),
            r"is HDR, PQ \(SMPTE 2084\): convert it to standard colours",
        ),
        (lambda folder: videos.with_hdr(folder / "a.mp4", videos.HLG), r"is HDR, HLG \(ARIB B67\)"),
        (
            lambda folder: videos.with_hdr(folder / "a.mp4", videos.BT709),
            r"is wide gamut, BT\.2020",
        ),
        (
            lambda folder: a_video(folder / "a.mp4", counted(1)),
            "has one frame only: a source needs at least two",
        ),
        (
            lambda folder: videos.ten_minutes(folder / "a.mp4"),
            r"lasts 601\.0 s, at most 120 s are taken: cut it",
        ),
        (
            lambda folder: a_video(folder / "a.mp4", codec="mjpeg", pixels="yuvj420p", sound=False),
            "",
        ),
    ],
    ids=[
        "sound only",
        "alpha mov",
        "alpha webm",
        "pq",
        "hlg",
        "bt2020",
        "one frame",
        "ten minutes",
        "mjpeg",
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence_that_says_what_to_do(
    tmp_path: Path, make, said: str
) -> None:  # type: ignore[no-untyped-def]
    if not said:  # the control: what is unusual and yet fine
        assert looked(make(tmp_path)).frames == 33
        return
    assert re.match(said, refusal(make(tmp_path)))


def test_interlaced_video_is_refused(tmp_path: Path) -> None:
    path = a_video(tmp_path / "a.mkv", codec="mpeg2video", options={"flags": "+ilme+ildct"}, fps=25)
    assert refusal(path) == "is interlaced: deinterlace it first"


def test_every_limit_has_its_sentence(tmp_path: Path) -> None:
    path = a_video(tmp_path / "a.mp4")
    for changed, said in (
        ({"max_seconds": 1.0}, "lasts 2.1 s, at most 1 s are taken: cut it (inputs.max_seconds)"),
        ({"max_frames": 20}, "has more than 20 frames: cut it (inputs.max_frames)"),
        (
            {"max_frame_pixels": 1000},
            "has frames of 32x32, at most 1,000 pixels are taken: scale it down "
            "(inputs.max_frame_pixels)",
        ),
    ):
        with pytest.raises(InputError) as caught:
            looked(path, replace(LIMITS, **changed))  # type: ignore[arg-type]
        assert str(caught.value) == said


def test_a_codec_beyond_the_list_stays_shut(tmp_path: Path) -> None:
    path = a_video(tmp_path / "a.avi", codec="ffvhuff", pixels="yuv420p")
    assert refusal(path).startswith("uses the codec ffvhuff, which is not read: H.264")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff\xe0 a picture",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n",
    ],
    ids=["empty", "picture", "playlist", "list of files", "session"],
)
def test_files_that_point_elsewhere_are_not_followed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert "mp4, mov, mkv, webm and avi are" in refusal(path)


def test_a_film_whose_data_lies_in_another_file_does_not_open_it(tmp_path: Path) -> None:
    # given a QuickTime file whose data reference, instead of "in this file", names a URL
    path = a_video(tmp_path / "a.mov")
    data = path.read_bytes()
    at = data.index(b"url \x00\x00\x00\x01")
    path.write_bytes(data[: at + 4] + b"\x00\x00\x00\x00" + data[at + 8 :])
    # then either its own bytes are read, or nothing is
    try:
        assert looked(path).frames == 33
    except InputError as error:
        assert "cannot be decoded" in str(error)


@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=40))
def test_any_damage_is_refused_in_a_sentence_or_harmless(places: list[tuple[float, int]]) -> None:
    data = bytearray(_SOUND)
    for share, value in places:
        data[min(len(data) - 1, int(share * len(data)))] = value
    try:
        look_at(io.BytesIO(bytes(data)), LIMITS)
        assert read_video(bytes(data), 16, 16, 17, 16).shape == (17, 16, 16, 3)
    except InputError as error:
        assert str(error).isprintable()


# --- converted: time ------------------------------------------------------------------------------


def test_frames_at_the_same_rate_are_taken_one_by_one(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        data = a_video(tmp_path / name, fps=24).read_bytes()
        assert times_of(read_video(data, 32, 32, 33, 24)) == list(range(33))


def test_another_rate_takes_the_frame_on_screen_at_each_moment(tmp_path: Path) -> None:
    data = a_video(tmp_path / "a.mp4", fps=24).read_bytes()
    # frame k of 16 fps is at k / 16 s, where the source shows frame floor(24 k / 16) = floor(1.5 k)
    assert times_of(read_video(data, 32, 32, 17, 16)) == [int(1.5 * k) for k in range(17)]
    # and at 60 fps each source frame is shown two or three times: floor(24 k / 60)
    assert times_of(read_video(data, 32, 32, 61, 60)) == [int(0.4 * k + 1e-9) for k in range(61)]


def test_a_variable_rate_is_read_by_the_clock(tmp_path: Path) -> None:
    data = videos.with_variable_rate(tmp_path / "a.mp4").read_bytes()
    # frames 2j and 2j + 1 appear at 120 j and 120 j + 30 ms; output frame k asks at 62.5 k ms
    expected = [2 * int(62.5 * k // 120) + (62.5 * k % 120 >= 30) for k in range(25)]
    assert times_of(read_video(data, 32, 32, 25, 16)) == expected


def test_only_the_beginning_of_a_longer_source_is_decoded(tmp_path: Path) -> None:
    # given a source whose end is damaged
    path = a_video(tmp_path / "a.avi", codec="mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3 : len(data) * 2 // 3 + 200] = bytes(200)
    assert times_of(read_video(bytes(data), 32, 32, 9, 16)) == list(range(9))


def test_a_last_frame_is_held_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    data = a_video(tmp_path / "a.mp4").read_bytes()  # 33 frames: 2.0625 s
    assert times_of(read_video(data, 32, 32, 34, 16)) == [*range(33), 32]
    with pytest.raises(InputError, match=r"lasts 2\.06 s, 3\.00 s are needed"):
        read_video(data, 32, 32, 49, 16)


def test_a_source_that_begins_late_begins_at_its_first_frame(tmp_path: Path) -> None:
    path = a_video(tmp_path / "a.mkv", ticks=[500 + 62 * t for t in range(33)], ticks_per_s=1000)
    assert times_of(read_video(path.read_bytes(), 32, 32, 17, 16))[:3] == [0, 1, 2]


# --- converted: shape and colour ------------------------------------------------------------------


def quarters(rows: int, columns: int) -> np.ndarray:
    """(3, rows, columns, 3): red, green, blue and white quarters, row by row."""
    frame = np.zeros((rows, columns, 3), np.uint8)
    frame[: rows // 2, : columns // 2] = (255, 0, 0)
    frame[: rows // 2, columns // 2 :] = (0, 255, 0)
    frame[rows // 2 :, : columns // 2] = (0, 0, 255)
    frame[rows // 2 :, columns // 2 :] = (255, 255, 255)
    return np.stack([frame] * 3)


def lossless(path: Path, frames: np.ndarray) -> bytes:
    return a_video(path, frames, codec="qtrle", pixels="rgb24").read_bytes()


def test_equal_sizes_are_left_as_they_are(tmp_path: Path) -> None:
    seen = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), np.uint8)
    assert np.array_equal(read_video(lossless(tmp_path / "a.mov", seen), 48, 32, 9, 16), seen)


def test_the_middle_is_cropped_and_scaled_by_area(tmp_path: Path) -> None:
    # given 64 columns and 32 rows, of which a square is asked for: columns 16 to 47 are the middle
    seen = np.random.default_rng(0).integers(0, 255, (2, 32, 64, 3), np.uint8)
    found = read_video(lossless(tmp_path / "a.mov", seen), 16, 16, 2, 16)
    # then each pixel is the mean of four
    means = seen[:, :, 16:48].reshape(2, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(found.astype(float) - means).max() <= 0.5
    # and of a tall one, rows
    tall = np.ascontiguousarray(seen.transpose(0, 2, 1, 3))
    turned = read_video(lossless(tmp_path / "b.mov", tall), 16, 16, 2, 16)
    assert np.array_equal(turned, found.transpose(0, 2, 1, 3))


def test_odd_sides_fill_an_even_size(tmp_path: Path) -> None:
    found = read_video(videos.with_odd_sides(tmp_path / "a.mov").read_bytes(), 64, 32, 33, 16)
    assert found.shape == (33, 32, 64, 3)
    assert times_of(found) == list(range(33))


def test_a_film_of_a_turned_phone_is_upright(tmp_path: Path) -> None:
    # given a file whose track header says: turn by 90 degrees clockwise
    path = a_video(tmp_path / "a.mov", quarters(32, 64), codec="qtrle", pixels="rgb24")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # behind version, times, id, duration, layer, volume
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 32 * one, 0, 1 << 30)
    path.write_bytes(data)
    # then it is taller than wide, and its left column has become its upper row
    assert (looked(path).width, looked(path).height) == (32, 64)
    found = read_video(bytes(data), 32, 64, 3, 16)[0]
    assert [tuple(found[y, x]) for y, x in ((0, 0), (0, 31), (63, 0), (63, 31))] == [
        (0, 0, 255), (255, 0, 0), (255, 255, 255), (0, 255, 0),
    ]  # fmt: skip


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    # given 32x32 stored pixels, each shown twice as wide as high
    path = a_video(tmp_path / "a.mkv", quarters(32, 32), tags={"sample_aspect_ratio": Fraction(2)})
    assert (looked(path).width, looked(path).height) == (64, 32)
    found = read_video(path.read_bytes(), 64, 32, 3, 16)[0]
    assert found[2, 2, 0] > 200 and found[2, 61, 1] > 200 and found[29, 2, 2] > 200


CORNERS = {(8, 8): (255, 0, 0), (8, 24): (0, 255, 0), (24, 8): (0, 0, 255), (24, 24): (255,) * 3}


def coloured(path: Path, frames: np.ndarray, **tags: int) -> bytes:
    """A video whose pixels are stored by the matrix and range that its tags name."""
    matrix = {1: "ITU709", 2: "ITU601", 5: "ITU601", 6: "ITU601"}[tags["colorspace"]]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=16)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "1"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=matrix, dst_color_range=tags["color_range"]
            )
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize(
    "tags",
    [
        {"colorspace": 1},
        {"colorspace": 1, "color_primaries": 1, "color_trc": 1},
        {"colorspace": 5},
        {"colorspace": 6, "color_trc": 6},
        {"colorspace": 2},  # not named: that of a small picture
    ],
)
def test_colours_follow_the_matrix_and_range_the_file_names(
    tmp_path: Path, tags: dict[str, int], color_range: int
) -> None:
    data = coloured(tmp_path / "a.mp4", quarters(32, 32), color_range=color_range, **tags)

    found = read_video(data, 32, 32, 3, 16)[0].astype(int)
    for (y, x), colour in CORNERS.items():
        assert np.abs(found[y, x] - colour).max() <= 6, (y, x, found[y, x])
    # and what is made of them is again what was seen, in our own colours
    again = to_frames(to_mp4(read_video(data, 32, 32, 3, 16), 16))[0].astype(int)
    for (y, x), colour in CORNERS.items():
        assert np.abs(again[y, x] - colour).max() <= 9, (y, x, again[y, x])


@pytest.mark.parametrize(
    ("primaries", "seen"),
    # worked out by swscale, which decodes with a standard display's gamma as well
    [(6, (105, 178, 88)), (5, (93, 180, 91)), (12, (59, 182, 74)), (1, (98, 178, 88))],
)
def test_primaries_that_the_file_names_are_brought_to_ours(
    tmp_path: Path, primaries: int, seen: tuple[int, int, int]
) -> None:
    green = np.broadcast_to(np.array((100, 180, 90), np.uint8), (3, 32, 32, 3))
    tags = {"colorspace": 6, "color_range": 1, "color_primaries": primaries, "color_trc": 1}
    data = coloured(tmp_path / "a.mp4", green, **tags)

    found = read_video(data, 16, 16, 3, 16)[0]

    assert np.abs(found.astype(int) - seen).max() <= 4, found[8, 8]


@pytest.mark.parametrize("primaries", [5, 6, 7, 12])
def test_grey_stays_grey_whatever_the_primaries(tmp_path: Path, primaries: int) -> None:
    tags = {"colorspace": 6, "color_range": 1, "color_primaries": primaries, "color_trc": 6}
    data = coloured(tmp_path / "a.mp4", counted(9), **tags)

    assert times_of(read_video(data, 32, 32, 9, 16)) == list(range(9))


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"color_trc": 8}, "is linear light"),
        ({"color_trc": 9}, "is logarithmic"),
        ({"colorspace": 9}, r"is wide gamut, BT\.2020"),
        ({"colorspace": 8}, r"is in colours that are not read \(matrix 8 of ITU-T H\.273\)"),
        ({"color_primaries": 10}, r"is in colours that are not read \(primaries 10 of"),
    ],
)
def test_colours_that_cannot_be_brought_to_ours_are_refused(
    tmp_path: Path, tags: dict[str, int], sentence: str
) -> None:
    path = a_video(tmp_path / "a.mp4", tags=tags)

    with pytest.raises(InputError, match=f"{sentence}.*: convert it to standard colours"):
        looked(path)


def test_our_own_videos_come_back_as_they_are(tmp_path: Path) -> None:
    data = an_mp4(tmp_path / "a.mp4", quarters(32, 32)).read_bytes()
    assert psnr_db(read_video(data, 32, 32, 3, 16), to_frames(data)) == float("inf")


_SOUND = b""


def setup_module() -> None:
    import tempfile

    global _SOUND
    with tempfile.TemporaryDirectory() as folder:
        _SOUND = a_video(Path(folder) / "a.mp4", counted(17)).read_bytes()
