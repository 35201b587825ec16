"""Attention tiles: which frames of a video attend to which, and what that saves. Only arithmetic.

The self-attention map of F latent frames with P tokens each is a grid of F x F tiles. A mask of
this family keeps the tiles of the diagonal and those in the rows and columns of k reference frames,
so that its cost grows linearly in F:

    F = 5, k = 2        # . # . .      # # # # #   frame 0, a reference: attends to all
    references 0, 2     . . # . .      # # # . .   frame 1: itself and the references
                        (columns)      # # # # #   frame 2, a reference
                                       # . # # .
                                       # . # . #

Source: Efficient-vDiT, arXiv 2502.06155. The places of the reference frames are not in its text;
they were found as the rule under which all nine published sparsities come out
(`tests/methods/test_tiles.py`). Installing such a mask is `on_model.py`; choosing k per layer is
`workers/survey/mask_search.py`.

Legend: F latent frames after patching, P tokens per frame, k reference frames.
"""

from __future__ import annotations

from collections.abc import Sequence

BLOCK = 128  # tokens per side of the blocks that the published kernel keeps or skips


def references(frames: int, k: int) -> tuple[int, ...]:
    """R_k = {floor(i F / k)}: the reference frames, evenly spaced from frame 0. All when k >= F."""
    _check(frames, k)
    if k >= frames:
        return tuple(range(frames))
    return tuple(i * frames // k for i in range(k))


def is_full(frames: int, k: int) -> bool:
    """Whether the mask keeps every tile: with F - 1 references the last frame attends to all."""
    _check(frames, k)
    return k >= frames - 1


def kept_tiles(frames: int, k: int) -> int:
    """(2k + 1) F - k^2 - k = F^2 - (F-k)(F-k-1): linear in F for a fixed k."""
    local = frames - min(k, frames)
    return frames * frames - local * max(local - 1, 0)


def density(frames: int, k: int) -> float:
    """rho: kept tiles over all, in (0, 1]: the share of the time of a kernel without waste."""
    _check(frames, k)
    return kept_tiles(frames, k) / (frames * frames)


def mean_density(frames: int, ks: Sequence[int]) -> float:
    """Mean of `density` over layers with these k."""
    return sum(density(frames, k) for k in ks) / len(ks)


def candidates(frames: int) -> tuple[int, ...]:
    """The k that a search tries for F frames, sparsest first; the last one is F, the full mask.

    {F/8, F/6, F/4, F/3, F/2} rounded, and 1, 2 and F (our choice: it gives the 1, 2, 3, 4, 5, 7,
    10, full of F = 21 and contains what the paper used for F = 8). A k that keeps every tile
    without being F is left out.
    """
    _check(frames, 1)
    tried = {1, 2, *(round(frames / part) for part in (8, 6, 4, 3, 2))}
    return (*sorted(k for k in tried if k >= 1 and not is_full(frames, k)), frames)


# --- what a step saves ----------------------------------------------------------------------------


def step_speedup(share: float, rho: float) -> float:
    """1 / (1 - A (1 - rho)): a whole step's ideal speed-up with attention at density rho."""
    return 1 / (1 - share * (1 - rho))


def _check(frames: int, k: int) -> None:
    if frames < 1 or k < 1:
        raise ValueError(
            f"a mask needs at least one frame and one reference frame, not {frames} and {k}"
        )
