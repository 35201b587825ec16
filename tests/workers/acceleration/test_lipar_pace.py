"""LIPAR's arithmetic of cost, and thresholds that follow a frame rate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.workers.acceleration.tiny import a_tiny_transformer
from vidplat.workers.acceleration.lipar_pace import Latency, PacedMask, pass_flops, smallest_in_time
from vidplat.workers.causal import StreamPlan, stream
from vidplat.workers.models.family import Condition

WAN = {"layers": 30, "width": 1536, "ffn_width": 8960, "text": 512}  # Wan 2.1 1.3B
PER_FRAME = 1560  # 480 x 832


@pytest.mark.parametrize(("keep", "share"), [(0.9, 0.901), (0.8, 0.801), (0.68, 0.682), (0.5, 0.503)])
def test_flops_fall_with_the_kept_share_as_published(keep: float, share: float) -> None:
    whole = pass_flops(3 * PER_FRAME, 7 * PER_FRAME, **WAN)

    # Only the text's keys and values do not shrink.
    assert pass_flops(3 * PER_FRAME * keep, 7 * PER_FRAME, **WAN) / whole == pytest.approx(share, abs=5e-4)


def test_the_window_alone_saves_more_than_pruning() -> None:
    trimmed, wide = (pass_flops(3 * PER_FRAME, frames * PER_FRAME, **WAN) for frames in (7, 21))

    assert wide / trimmed == pytest.approx(1 / 0.535, abs=0.01)


def test_latency_is_the_line_through_measured_blocks() -> None:
    # 2 s and 0.5 ms per token.
    found = Latency.fitted([(1000, 2.5), (2000, 3.0), (4000, 4.0)])

    assert (found.base_s, found.per_token_s) == pytest.approx((2.0, 0.0005))
    assert found.seconds(3000) == pytest.approx(3.5)
    with pytest.raises(ValueError, match="at least three different counts"):
        Latency.fitted([(1000, 2.5), (1000, 2.6), (2000, 3.0)])


def test_the_smallest_threshold_in_time_is_taken_and_left_again_only_with_slack() -> None:
    latency = Latency(0.0, 0.01)
    kept = [100, 80, 60]  # 1.0, 0.8 and 0.6 s

    assert smallest_in_time(kept, latency, 1.0, before=None) == (0, True)
    assert smallest_in_time(kept, latency, 0.9, before=None) == (1, True)
    # From 1, going back to 0 needs 1.0 <= 0.95 x 1.04: no; x 1.06: 1.007, yes.
    assert smallest_in_time(kept, latency, 1.04, before=1) == (1, True)
    assert smallest_in_time(kept, latency, 1.06, before=1) == (0, True)
    # Staying needs no slack, and nothing faster than the largest is there.
    assert smallest_in_time(kept, latency, 0.8, before=1) == (1, True)
    assert smallest_in_time(kept, latency, 0.5, before=1) == (2, False)


def a_source() -> Tensor:
    """12 frames of 8x12: still, but the left third drifts by a little more in each of its columns."""
    torch.manual_seed(1)
    video = torch.randn(4, 1, 16, 24).expand(4, 12, 16, 24).clone()
    video[:, :, :, :16] += 0.12 * torch.arange(12.0).view(1, -1, 1, 1)
    return video


def test_a_stream_in_a_hurry_prunes_more_and_says_when_it_cannot_keep_up() -> None:
    patch, latency = (2, 2), Latency(0.0, 1.0)  # a second per token

    slow, fast = (PacedMask(a_source(), patch, latency, target_s) for target_s in (1e9, 250.0))
    hopeless = PacedMask(a_source(), patch, Latency(5.0, 1.0), 4.0)  # the base alone is too slow

    whole = slow(3, 3)
    assert slow.taken[-1].tau1 == 0.05 and slow.taken[-1].in_time
    assert whole is None or int(whole.sum()) >= 200
    masks = [fast(start, 3) for start in (3, 6, 9)]
    assert all(mask is not None and int(mask.sum()) <= 250 for mask in masks)
    assert all(choice.in_time and choice.expected_s <= 250 for choice in fast.taken)
    hopeless(6, 3)
    assert (hopeless.taken[-1].tau1, hopeless.taken[-1].in_time) == (0.3, False)


def test_a_cut_makes_the_block_whole() -> None:
    video = a_source()
    torch.manual_seed(8)
    video[:, 6:] = 5 * torch.randn(4, 6, 16, 24)

    mask = PacedMask(video, (2, 2), Latency(0.0, 1.0), 1.0)

    assert mask(6, 3) is None
    assert mask.taken[-1].expected_s == 3 * 8 * 12


def test_the_driver_asks_block_by_block() -> None:
    twin = a_tiny_transformer("wan", frames=3, rows=8, columns=12)
    mask = PacedMask(a_source(), (2, 2), Latency(0.0, 1.0), 250.0)
    condition = Condition(twin.inputs["encoder_hidden_states"], None, 1.0)

    blocks = list(stream(twin.model, condition, a_source()[None], StreamPlan(), keep=mask))

    assert len(blocks) == 4
    assert len(mask.taken) == 3  # the first block is whole without asking
