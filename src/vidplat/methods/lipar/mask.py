"""LIPAR's mask: which latent tokens hardly differ from those before them, and whom they repeat.

A token is kept (computed) when it changed since the frame before, or since the value that would be
reused in its place; otherwise it is pruned and stands for its latest kept ancestor at the same
place. The steps are those of the released code of LIPAR (arXiv 2603.05811 v2): trimmed distances,
median and Gaussian smoothing, two thresholds, clean-up by median, opening, closing and dilation.
All of it stays on the device.

One thing is added. The clean-up's median erases what is kept in a single frame, so a slow fade
would stay frozen. `recheck` repeats the long test on the cleaned mask, against what will really be
reused, and keeps what fails it (our choice; off gives the released code's mask).

Two forms. The batch form looks one frame ahead (median and dilation). The causal one does not, so a
stream can be pruned while it arrives.

Legend: C latent channels, T latent frames, H/W latent rows and columns, h/w token rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_TRIM = 0.2  # share of a token's entries left out at each end of the sorted differences
_SIGMA = 1.5  # of the Gaussian, in tokens and frames


@dataclass(frozen=True)
class MaskRule:
    """How a mask is made. Thresholds are those for Wan 2.1, in normalised latents."""

    tau1: float = 0.15  # change since the frame before
    tau2: float = 0.3  # change since what would be reused
    # latent frames that share one reuse source: 1 when frames are made together, S in a stream
    block: int = 1
    causal: bool = False
    min_keep: float = 0.0  # a frame with any kept token keeps at least this share
    long_term: bool = True  # off: no test against what would be reused, an ablation
    dilate: bool = True  # off: no dilation, an ablation
    recheck: bool = True  # the long test once more after the clean-up; see above


def keep_mask(latents: Tensor, patch: tuple[int, int], rule: MaskRule = MaskRule()) -> Tensor:
    """(T, h, w) bool, True where a token is to be computed; frame 0 always is.

    `latents` (C, T, H, W) normalised; `patch` the latent rows and columns of a token. LIPAR,
    section 3.2 and its released code; the exact order of the steps is the code's.
    """
    tokens = tokens_of(latents, patch)
    keep = torch.ones(tokens.shape[:3], dtype=torch.bool, device=latents.device)
    if len(tokens) == 1:
        return keep
    kept = changed(tokens, rule)
    kept = cleaned(kept, causal=rule.causal, dilate=rule.dilate)
    keep[1:] = _with_floor(kept, rule.min_keep)
    if rule.long_term and rule.recheck:
        keep[1:] = _kept(tokens, keep[1:], rule)
    return keep


def tokens_of(latents: Tensor, patch: tuple[int, int]) -> Tensor:
    """(T, h, w, entries of a token) from (C, T, H, W)."""
    rows, columns = patch
    channels, frames, high, wide = latents.shape
    split = latents.reshape(channels, frames, high // rows, rows, wide // columns, columns)
    return split.permute(1, 2, 4, 3, 5, 0).flatten(3)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean of |one - other| over a token's entries without the lowest and the highest fifth.

    (..., entries) -> (...). With 64 entries, ranks 12 to 50.
    """
    entries = one.shape[-1]
    low, high = int(_TRIM * entries), int((1 - _TRIM) * entries)
    if high <= low:
        raise ValueError(f"a token of {entries} entries is too small to be trimmed")
    return (one - other).abs().sort(dim=-1).values[..., low:high].mean(-1)


def changed(tokens: Tensor, rule: MaskRule) -> Tensor:
    """(T-1, h, w) bool for frames 1..: both threshold tests of `tokens_of`, before any clean-up."""
    change = smoothed(distance(tokens[1:], tokens[:-1]), causal=rule.causal)
    short = change > rule.tau1
    return _kept(tokens, short, rule) if rule.long_term else short


def _kept(tokens: Tensor, keep: Tensor, rule: MaskRule) -> Tensor:
    """`keep` (T-1, h, w) and the tokens that differ by more than tau2 from what would be given to
    them: the latest kept value at the end of the block before their own."""
    source = latest = tokens[0]
    found = []
    for frame in range(1, len(tokens)):
        here = keep[frame - 1]
        if frame % rule.block == 0:
            source = latest
        if frame >= rule.block:
            here = here | (distance(source, tokens[frame]) > rule.tau2)
        latest = torch.where(here[..., None], tokens[frame], latest)
        found.append(here)
    return torch.stack(found)


def smoothed(change: Tensor, *, causal: bool) -> Tensor:
    """(t, h, w): 3x3x3 median, then a Gaussian of sigma 1.5 without future taps; edges repeated."""
    middle = _median(change, causal=causal)
    side = math.exp(-1 / (2 * _SIGMA**2))
    now_and_before = torch.tensor([side, 1.0], dtype=change.dtype, device=change.device)
    across = torch.tensor([side, 1.0, side], dtype=change.dtype, device=change.device)
    padded = _padded(middle, time=(1, 0))
    for axis, taps in enumerate((now_and_before, across, across)):
        padded = (padded.unfold(axis, len(taps), 1) * (taps / taps.sum())).sum(-1)
    return padded


def cleaned(keep: Tensor, *, causal: bool, dilate: bool = True) -> Tensor:
    """Median 3x3x3, opening and closing 3x3 in each frame, dilation by a 3x5x5 box. (t, h, w) bool.

    The frames are those from 1 on: frame 0 is kept by definition, and must not spread into its
    neighbour. The causal form drops the future half of median and box (the median then looks at
    three frames up to now: our choice).
    """
    mask = _median(keep.float(), causal=causal)
    mask = _shrunk(_grown(_grown(_shrunk(mask))))
    if dilate:
        past, kernel = (1, 2) if causal else (0, 3)
        # nothing is kept before the first frame
        mask = functional.pad(mask[None], (0, 0, 0, 0, past, 0))
        around = (0 if causal else 1, 2, 2)
        mask = functional.max_pool3d(mask, (kernel, 5, 5), stride=1, padding=around)[0]
    return mask > 0.5


def ancestors(keep: Tensor) -> Tensor:
    """(T, h, w) int64: for each token the number of its latest kept ancestor in frame-major order;
    its own if kept. Frame 0 must be kept."""
    frames, rows, columns = keep.shape
    number = torch.arange(frames, device=keep.device).view(-1, 1, 1)
    frame = torch.where(keep, number, 0).cummax(0).values
    place = torch.arange(rows * columns, device=keep.device).view(1, rows, columns)
    return frame * (rows * columns) + place


def repeated(latents: Tensor, keep: Tensor, before: Tensor | None = None) -> Tensor:
    """Latents (1, C, F, H, W) whose pruned tokens are their latest kept ancestors' (section 3.4).

    `keep` (F, h, w) bool. Tokens without one get `before` (1, C, H, W), the frame before the first.
    """
    rows, columns = keep.shape[1:]
    high, wide = latents.shape[3] // rows, latents.shape[4] // columns
    whole = latents if before is None else torch.cat([before[:, :, None], latents], dim=2)
    known = keep if before is None else torch.cat([torch.ones_like(keep[:1]), keep])
    frame = ancestors(known) // (rows * columns)
    frame = frame.repeat_interleave(high, 1).repeat_interleave(wide, 2)
    found = whole.gather(2, frame.expand(*whole.shape))
    return found if before is None else found[:, :, 1:]


def _with_floor(keep: Tensor, least: float) -> Tensor:
    """Frames with any kept token grow by 3x3 until they keep the share `least`."""
    while least > 0.0:
        share = keep.float().mean((1, 2))
        short = (share > 0) & (share < least)
        if not bool(short.any()):
            break
        keep = torch.where(short[:, None, None], _grown(keep.float()) > 0.5, keep)
    return keep


def _median(values: Tensor, *, causal: bool) -> Tensor:
    """Median of 27 neighbours, edges repeated; the causal one takes frames t-2..t for t-1..t+1."""
    window = _padded(values, time=(2, 0) if causal else (1, 1))
    for axis in range(3):
        window = window.unfold(axis, 3, 1)
    return window.flatten(3).median(-1).values


def _padded(values: Tensor, *, time: tuple[int, int]) -> Tensor:
    """(t, h, w) with edges repeated by one in space, and by `time` in frames."""
    return functional.pad(values[None, None], (1, 1, 1, 1, *time), mode="replicate")[0, 0]


def _grown(mask: Tensor) -> Tensor:
    """Dilated by 3x3 in each frame."""
    return functional.max_pool2d(mask[None], 3, stride=1, padding=1)[0]


def _shrunk(mask: Tensor) -> Tensor:
    """Eroded by 3x3 in each frame; what lies outside the frame does not count."""
    return -_grown(-mask)
