"""The mask family: which tiles are kept, what they save, and the published figures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vidplat.methods.pass_size import BlockSize
from vidplat.methods.vdit import tiles

SMALL = [(frames, k) for frames in range(1, 13) for k in range(1, frames + 3)]


def block_sparsity(frames: int, per_frame: int, k: int) -> float:
    """Share of the map's squares of 128 x 128 in which no pair of tokens is kept: what is left out
    by a kernel that computes whole blocks."""
    first = np.arange(0, frames * per_frame, tiles.BLOCK)
    last = np.minimum(first + tiles.BLOCK, frames * per_frame) - 1
    low, high = first // per_frame, last // per_frame  # frames that a block touches
    shared = (low[:, None] <= high) & (low <= high[:, None])
    reference = np.array(tiles.references(frames, k))[:, None]
    is_global = ((low <= reference) & (reference <= high)).any(0)
    return 1 - float((shared | is_global | is_global[:, None]).mean())


def keeps(frames: int, k: int, query: int, key: int) -> bool:
    """Whether the tile of these two frames is kept."""
    reference = tiles.references(frames, k)
    return query == key or query in reference or key in reference


@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_the_kept_tiles_are_those_of_the_rule(frames: int, k: int) -> None:
    grid = [[keeps(frames, k, a, b) for b in range(frames)] for a in range(frames)]
    least = min(k, frames)

    assert (
        sum(map(sum, grid))
        == tiles.kept_tiles(frames, k)
        == frames**2 - (frames - least) * (frames - least - 1)
    )
    assert all(grid[a][b] == grid[b][a] for a in range(frames) for b in range(frames))  # symmetric
    assert all(grid[a][a] for a in range(frames))  # the diagonal
    assert {sum(row) for row in grid} <= {
        min(k + 1, frames),
        frames,
    }  # itself and the references, or all
    assert tiles.is_full(frames, k) == all(map(all, grid))


@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_references_are_k_different_frames_and_frame_0_is_one(frames: int, k: int) -> None:
    found = tiles.references(frames, k)

    assert len(set(found)) == len(found) == min(k, frames)
    assert found[0] == 0 and found[-1] < frames
    assert list(found) == sorted(found)


def test_references_of_uneven_spacing_are_rounded_down() -> None:
    assert tiles.references(21, 4) == (0, 5, 10, 15)  # 21/4 = 5.25, 10.5, 15.75
    assert tiles.references(9, 2) == (0, 4)


def test_cost_is_linear_in_the_frames() -> None:
    """(2k+1) F - k^2 - k: twice the frames cost twice the tiles, and the k^2 + k that were saved
    only once."""
    for k in (1, 2, 3, 8):
        for frames in (16, 21, 64, 500):
            assert tiles.kept_tiles(2 * frames, k) - 2 * tiles.kept_tiles(frames, k) == k * k + k


@pytest.mark.parametrize(
    ("frames", "k", "percent"),
    [
        *((8, 4, 17.60), (8, 3, 29.88), (8, 2, 45.47), (8, 1, 64.38)),
        *((24, 12, 21.51), (24, 8, 40.30), (24, 6, 51.88), (24, 4, 64.98), (24, 3, 72.05)),
    ],
)
def test_the_published_sparsities_come_out(frames: int, k: int, percent: float) -> None:
    """Efficient-vDiT, kernel table: 45 x 80 = 3600 tokens per frame, blocks of 128 (3600 is 28.125
    of them)."""
    assert 100 * block_sparsity(frames, 3600, k) == pytest.approx(percent, abs=0.02)


def test_frames_of_whole_blocks_lose_nothing_at_their_borders() -> None:
    assert block_sparsity(21, 1536, 3) == pytest.approx(1 - tiles.density(21, 3))
    assert block_sparsity(21, 1560, 3) < 1 - tiles.density(21, 3)  # Wan at 480p: 12.19 blocks


def test_wan_at_81_frames_has_these_ideal_sparsities() -> None:
    found = [round(1 - tiles.density(21, k), 3) for k in (1, 2, 3, 4, 5, 7, 10)]
    assert found == [0.862, 0.776, 0.694, 0.617, 0.544, 0.413, 0.249]


def test_candidates_go_from_the_sparsest_to_the_full_mask() -> None:
    assert tiles.candidates(21) == (1, 2, 3, 4, 5, 7, 10, 21)
    assert set(tiles.candidates(8)) >= {1, 2, 3, 4, 8}
    assert tiles.candidates(9) == (1, 2, 3, 4, 9)
    assert tiles.candidates(3) == (1, 3)  # k = 2 of 3 keeps every tile
    assert tiles.candidates(2) == (2,)
    assert tiles.candidates(1) == (1,)
    for frames in range(2, 60):
        kept = [tiles.density(frames, k) for k in tiles.candidates(frames)]
        assert kept == sorted(set(kept)) and kept[-1] == 1


@pytest.mark.parametrize(
    ("what", "tokens", "width", "ffn", "share"),
    [
        ("1.3B at 480p", 21 * 30 * 52, 1536, 8960, 0.70),
        ("14B at 480p", 21 * 30 * 52, 5120, 13824, 0.52),
        ("14B at 720p", 21 * 45 * 80, 5120, 13824, 0.72),
    ],
)
def test_attention_takes_its_known_share_of_wan(
    what: str, tokens: int, width: int, ffn: int, share: float
) -> None:
    size = BlockSize(width, ffn, 512)
    assert size.attention_share(tokens) == pytest.approx(share, abs=0.01)


def test_three_references_make_a_step_of_the_small_wan_1_94_times_as_fast() -> None:
    assert tiles.step_speedup(0.70, tiles.density(21, 3)) == pytest.approx(1.94, abs=0.01)


def test_no_frame_and_no_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        tiles.density(0, 1)
    with pytest.raises(ValueError, match="at least one frame"):
        tiles.references(8, 0)


def test_it_needs_no_torch() -> None:
    script = (
        "import sys, vidplat.methods.vdit.tiles; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
