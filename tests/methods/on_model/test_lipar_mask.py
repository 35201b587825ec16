"""LIPAR's mask: exact cases by hand, what it must keep, and what the causal form may see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidplat.methods.lipar.mask import (
    MaskRule,
    ancestors,
    changed,
    cleaned,
    distance,
    keep_mask,
    smoothed,
    tokens_of,
)

PATCH = (2, 2)


def a_still_video(frames: int = 9, rows: int = 20, columns: int = 24) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(4, 1, rows, columns).expand(4, frames, rows, columns).clone()


def a_moving_square() -> tuple[Tensor, Tensor]:
    """A still video with a square of 5x5 tokens that moves one to the right per frame; and where it
    is, (T, h, w)."""
    video = a_still_video(frames=7, rows=32, columns=48)
    where = torch.zeros(7, 16, 24, dtype=torch.bool)
    torch.manual_seed(4)
    for frame in range(7):
        left = 3 + frame
        where[frame, 5:10, left : left + 5] = True
        video[:, frame, 10:20, 2 * left : 2 * left + 10] = 4 + torch.randn(4, 10, 10)
    return video, where


def dilated(mask: Tensor, box: tuple[int, int, int] = (3, 5, 5)) -> Tensor:
    padding = tuple(side // 2 for side in box)
    grown = torch.nn.functional.max_pool3d(mask.float()[None], box, stride=1, padding=padding)
    return grown[0] > 0


def test_tokens_hold_the_entries_of_their_patch() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)  # C, T, H, W

    tokens = tokens_of(latents, PATCH)

    assert tokens.shape == (3, 2, 3, 8)
    # Token (t=1, row 1, column 2): rows 2..3 and columns 4..5 of both channels.
    assert set(tokens[1, 1, 2].tolist()) == set(latents[:, 1, 2:4, 4:6].flatten().tolist())


def test_the_distance_is_the_mean_of_ranks_12_to_50_of_64() -> None:
    one, other = torch.zeros(64), torch.arange(64.0)

    # Differences are 0..63; ranks 12..50 are kept, and their mean is (12 + 50) / 2.
    assert distance(one, other[torch.randperm(64)]).item() == 31.0
    # What is cut off has no weight: a quarter of the entries may be anything above.
    assert distance(one, torch.where(other > 50, 1e6, other)).item() == 31.0


def test_a_token_too_small_to_be_trimmed_is_refused() -> None:
    with pytest.raises(ValueError, match="token of 1 entries is too small"):
        distance(torch.zeros(1), torch.ones(1))


def test_smoothing_ignores_what_comes_later_but_for_the_batch_median() -> None:
    change = torch.zeros(5, 6, 7)
    change[3:] = 1.0

    batch, causal = smoothed(change, causal=False), smoothed(change, causal=True)

    # Taps of two frames, sigma 1.5: before : now = exp(-1/4.5) : 1, so now weighs 1 / (1 + 0.8007)
    # = 0.5553. Batch: at the step the median of frames 2, 3, 4 is already 1. Causal: of frames 1,
    # 2, 3 it is 0 still.
    torch.testing.assert_close(
        batch[:, 0, 0], torch.tensor([0, 0, 0, 0.5553, 1.0]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        causal[:, 0, 0], torch.tensor([0, 0, 0, 0, 0.5553]), atol=1e-4, rtol=0
    )


def test_of_a_constant_video_only_frame_0_is_kept() -> None:
    for causal in (False, True):
        keep = keep_mask(a_still_video(), PATCH, MaskRule(causal=causal))
        assert keep[0].all()
        assert not keep[1:].any()


def test_of_independent_noise_everything_is_kept() -> None:
    torch.manual_seed(5)
    noise = torch.randn(4, 9, 20, 24)  # |difference| of two normals is about 1.1, far above tau1

    for causal in (False, True):
        assert keep_mask(noise, PATCH, MaskRule(causal=causal)).all()


def test_one_frame_is_kept_whole() -> None:
    assert keep_mask(a_still_video(frames=1), PATCH).shape == (1, 10, 12)
    assert keep_mask(a_still_video(frames=1), PATCH).all()


def test_a_moving_square_is_kept_with_the_box_around_it_but_for_two_corners() -> None:
    video, where = a_moving_square()

    keep = keep_mask(video, PATCH)

    # The median cuts the corners of what it sees, so of the box of 3x5x5 around the square two
    # corner tokens of a frame may be missing: those where it will be next.
    for box in ((3, 5, 1), (3, 1, 5), (3, 3, 3)):
        assert not bool((dilated(where, box) & ~keep).any())
    assert int((dilated(where, (3, 5, 5)) & ~keep).sum((1, 2)).max()) <= 2
    # Where it was is kept as well, and two tokens of smoothing and box further out; what lies
    # farther is pruned.
    touched = where.clone()
    touched[1:] |= where[:-1]
    assert not bool((keep & ~dilated(touched, (5, 9, 9)))[1:].any())
    assert 0.2 < keep[1:].float().mean() < 0.5


def test_a_causal_mask_does_not_see_later_frames() -> None:
    video, _ = a_moving_square()
    rule = MaskRule(causal=True, block=3)
    before = keep_mask(video, PATCH, rule)

    for frame in range(1, 6):
        edited = video.clone()
        edited[:, frame + 1 :] += torch.randn_like(edited[:, frame + 1 :]) * 5
        assert torch.equal(keep_mask(edited, PATCH, rule)[: frame + 1], before[: frame + 1])
        assert torch.equal(keep_mask(video[:, : frame + 1], PATCH, rule), before[: frame + 1])


def test_the_batch_mask_does_see_the_next_frame() -> None:
    """The reason for the causal form: the same edit changes the past."""
    video, _ = a_moving_square()
    edited = video.clone()
    edited[:, 4:] += 5 * torch.randn_like(edited[:, 4:])

    assert not torch.equal(keep_mask(edited, PATCH)[:4], keep_mask(video, PATCH)[:4])


def test_a_slow_ramp_below_tau1_is_caught_by_the_long_test() -> None:
    # Steps of 0.05 < tau1; against frame 0 the sum passes tau2 = 0.32 at frame 7 (0.35).
    video = a_still_video(frames=12) + 0.05 * torch.arange(12.0).view(1, -1, 1, 1)

    assert not changed(tokens_of(video, PATCH), MaskRule(long_term=False)).any()
    found = changed(tokens_of(video, PATCH), MaskRule(tau2=0.32))
    assert [frame + 1 for frame in range(11) if found[frame].any()] == [7]
    assert found[6].all()
    assert not keep_mask(video, PATCH, MaskRule(long_term=False))[1:].any()


def test_what_the_long_test_keeps_in_one_frame_survives_the_clean_up_only_by_the_second_look() -> (
    None
):
    # As above: all of frame 7 is kept, 9 of the 27 neighbours that the clean-up's median asks.
    video = a_still_video(frames=12) + 0.05 * torch.arange(12.0).view(1, -1, 1, 1)

    assert not keep_mask(video, PATCH, MaskRule(tau2=0.32, recheck=False))[1:].any()
    assert keep_mask(video, PATCH, MaskRule(tau2=0.32))[7].all()
    assert keep_mask(video, PATCH, MaskRule(tau2=0.32)).sum() == 2 * 10 * 12


def test_in_blocks_the_long_test_asks_for_the_end_of_the_block_before() -> None:
    # Block 3: the source of frames 3..5 is frame 0's value, of 6..8 as well unless something in
    # between was kept. 0.05 * 7 = 0.35 > 0.32: frames 7 and 8 both differ from the source, and
    # their block can reuse neither.
    video = a_still_video(frames=12) + 0.05 * torch.arange(12.0).view(1, -1, 1, 1)

    found = changed(tokens_of(video, PATCH), MaskRule(tau2=0.32, block=3))

    # Frames 9..11 compare with frame 8, kept last: 0.05 .. 0.15.
    assert [frame + 1 for frame in range(11) if found[frame].any()] == [7, 8]


def test_lower_thresholds_keep_more_before_the_clean_up() -> None:
    torch.manual_seed(6)
    video = a_still_video(frames=6) + torch.randn(4, 6, 20, 24).cumsum(1) * 0.1
    tokens = tokens_of(video, PATCH)

    def short(tau1: float) -> Tensor:
        return changed(tokens, MaskRule(tau1=tau1, long_term=False))

    def long(tau2: float) -> Tensor:
        # One block of three, then frames 3..5: all compare with the same frame 0 (tau1 keeps
        # nothing).
        return changed(tokens, MaskRule(tau1=9.0, tau2=tau2, block=3))

    for finer, coarser in ((0.05, 0.08), (0.08, 0.11), (0.11, 0.2)):
        assert not bool((short(coarser) & ~short(finer)).any())
        assert short(finer).sum() >= short(coarser).sum()
    for finer, coarser in ((0.1, 0.2), (0.2, 0.3)):
        assert not bool((long(coarser) & ~long(finer)).any())


def test_a_token_kept_earlier_can_spare_a_later_one() -> None:
    """Keeping more makes a newer reuse source: over many frames the mask is not monotone in the
    thresholds."""
    # Steps of 0.05: with tau2 = 0.32 frame 7 is kept (0.35), then 14; with tau2 = 0.22, frames 5,
    # 10 and 15.
    video = a_still_video(frames=15) + 0.05 * torch.arange(15.0).view(1, -1, 1, 1)
    tokens = tokens_of(video, PATCH)

    def frames(tau2: float) -> list[int]:
        found = changed(tokens, MaskRule(tau2=tau2))
        return [frame + 1 for frame in range(14) if found[frame].any()]

    assert (frames(0.32), frames(0.22)) == ([7, 14], [5, 10])


def test_clean_up_drops_specks_and_fills_holes() -> None:
    keep = torch.zeros(5, 12, 12, dtype=torch.bool)
    keep[2, 2, 2] = True  # one token in one frame: a speck
    assert not cleaned(keep, causal=False, dilate=False).any()

    keep[:, 5:10, 4:9] = True
    keep[2, 7, 6] = False  # one token missing
    found = cleaned(keep, causal=False, dilate=False)
    assert found[:, 6:9, 5:8].all()
    assert not found[:, :4].any()


def test_dilation_reaches_two_tokens_and_one_frame_and_forward_only_when_causal() -> None:
    keep = torch.zeros(9, 15, 15, dtype=torch.bool)
    keep[3:6, 5:10, 5:10] = True
    core = cleaned(keep, causal=False, dilate=False)
    grown = cleaned(keep, causal=False)
    assert torch.equal(grown, dilated(core))

    core = cleaned(keep, causal=True, dilate=False)
    in_space = torch.nn.functional.max_pool2d(core.float()[None], 5, stride=1, padding=2)[0] > 0
    in_space[1:] |= in_space[:-1].clone()  # the box reaches from t-1 to t
    assert torch.equal(cleaned(keep, causal=True), in_space)


def test_a_frame_with_any_kept_token_keeps_the_floor() -> None:
    video, _ = a_moving_square()
    video[:, 5:] = video[:, 4:5]  # nothing moves at the end

    plain = keep_mask(video, PATCH)
    floored = keep_mask(video, PATCH, MaskRule(min_keep=0.6))

    shares = floored[1:].float().mean((1, 2))
    for share, before in zip(shares.tolist(), plain[1:].float().mean((1, 2)).tolist(), strict=True):
        assert share >= 0.6 if before > 0 else share == 0
    assert not bool((plain & ~floored).any())


def test_ancestors_are_the_latest_kept_tokens_at_the_same_place() -> None:
    keep = torch.tensor(
        [[[True, True]], [[False, True]], [[False, False]], [[True, False]]]
    )  # T=4, one row of two

    # Place 0: kept in frames 0 and 3. Place 1: kept in frames 0 and 1. Number = 2 * frame + place.
    assert ancestors(keep).flatten().tolist() == [0, 1, 0, 3, 0, 3, 6, 3]
