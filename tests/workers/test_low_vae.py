"""A VAE at a lower resolution: the stated shapes, the same weights, the VAE it is made of
unchanged.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flipbook_training.vae import clips
from tests.methods.on_model.tiny import randomise
from vidplat.workers.models import low_vae
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.loading import load_family
from vidplat.workers.models.low_vae import lowered


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


def a_vae(form: str) -> Any:
    """A small one of the real class: Wan 2.1's form, or Wan 2.2's with residual sampling and 2 x 2
    patches."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    common: dict[str, Any] = {
        "base_dim": 8,
        "num_res_blocks": 1,
        "latents_mean": [0.0] * 16,
        "latents_std": [1.0] * 16,
    }
    if form == "2.2":
        common |= {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
        common |= {"scale_factor_spatial": 16, "temperal_downsample": [False, True, True]}
    vae = AutoencoderKLWan(z_dim=16, **common).eval()
    randomise(vae)
    return vae


FORMS = ("2.1", "2.2")
CELL = {"2.1": 8, "2.2": 16}  # pixels per latent cell, each way


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def some_latents() -> Tensor:
    return torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))


def decoded(vae: Any, latents: Tensor) -> Tensor:
    made: Tensor = vae.decode(latents, return_dict=False)[0]
    return made


def encoded(vae: Any, frames: Tensor) -> Tensor:
    made: Tensor = vae.encode(frames).latent_dist.mode()
    return made


@pytest.mark.parametrize("level", [0, 1, 2])
def test_frames_are_smaller_by_the_level_and_latents_are_not(form: str, level: int) -> None:
    low, latents = lowered(a_vae(form), level), some_latents()
    cell = CELL[form] // 2**level

    frames = decoded(low, latents)

    assert frames.shape == (1, 3, 9, 4 * cell, 6 * cell)  # 3 latents are 1 + 2 x 4 frames
    assert encoded(low, frames).shape == latents.shape
    assert torch.isfinite(frames).all()
    assert torch.isfinite(encoded(low, frames)).all()


def test_wan_2_1_s_half_has_the_specified_size() -> None:
    low = lowered(a_vae("2.1"), 1)
    frames = decoded(low, torch.zeros(1, 16, 3, 8, 8))
    assert frames.shape == (1, 3, 9, 32, 32)
    assert encoded(low, frames).shape == (1, 16, 3, 8, 8)


@pytest.mark.parametrize(
    "frames", [*(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2, 5)), 8]
)
@pytest.mark.parametrize("level", [0, 1])
def test_several_latent_frames_in_a_pass_decode_to_what_single_ones_do(
    form: str, level: int, frames: int
) -> None:
    # 8 are passes of 1, 4 and 3
    low = lowered(a_vae(form), level)
    latents = torch.randn(1, 16, frames, 4, 6, generator=torch.Generator().manual_seed(frames))
    one_by_one = decoded(low, latents)

    torch.testing.assert_close(low_vae.decoded(low, latents), one_by_one, rtol=0, atol=2e-5)
    assert torch.equal(decoded(low, latents), one_by_one)  # nothing is remembered of it


def test_a_vae_that_decodes_in_tiles_goes_on_doing_so(form: str) -> None:
    vae, latents = a_vae(form), some_latents()
    vae.enable_tiling(CELL[form] * 2, CELL[form] * 2, CELL[form], CELL[form])
    assert torch.equal(low_vae.decoded(vae, latents), decoded(vae, latents))


def test_level_nought_is_the_vae_itself(form: str) -> None:
    vae, latents = a_vae(form), some_latents()
    low = lowered(vae, 0)
    frames = decoded(vae, latents)
    assert torch.equal(decoded(low, latents), frames)
    assert torch.equal(encoded(low, frames), encoded(vae, frames))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_weight_is_shared(form: str, level: int) -> None:
    vae = a_vae(form)
    low = lowered(vae, level)
    ours, own = list(low.parameters()), list(vae.parameters())
    assert len(ours) == len(own) > 50
    assert all(a is b and a.data_ptr() == b.data_ptr() for a, b in zip(ours, own, strict=True))


@pytest.mark.parametrize("level", [1, 2])
def test_the_vae_it_is_made_of_is_unchanged(form: str, level: int) -> None:
    vae, latents = a_vae(form), some_latents()
    frames, names = (
        decoded(vae, latents),
        [(name, type(module)) for name, module in vae.named_modules()],
    )
    back = encoded(vae, frames)

    low = lowered(vae, level)
    encoded(low, decoded(low, latents))

    assert [(name, type(module)) for name, module in vae.named_modules()] == names
    assert torch.equal(decoded(vae, latents), frames)
    assert torch.equal(encoded(vae, frames), back)


@pytest.mark.parametrize("level", [1, 2])
def test_a_picture_without_detail_takes_the_same_shortcuts(level: int) -> None:
    """What the shortcuts of Wan 2.2 do to one colour does not depend on the resolution it comes
    in."""
    vae = a_vae("2.2")
    low = lowered(vae, level)
    for full, own in (
        (vae.decoder.up_blocks, low.decoder.up_blocks),
        (vae.encoder.down_blocks, low.encoder.down_blocks),
    ):
        for block, lower in zip(full, own, strict=True):
            if block.avg_shortcut is None or type(block.avg_shortcut) is type(lower.avg_shortcut):
                continue
            channels = block.avg_shortcut.in_channels
            flat = torch.randn(1, channels, 2, 1, 1).expand(-1, -1, -1, 4, 4)
            whole, half = block.avg_shortcut(flat), lower.avg_shortcut(flat)
            torch.testing.assert_close(half.mean((3, 4)), whole.mean((3, 4)))
            assert half.shape[3:] == (4, 4)


def test_tiles_count_as_many_latent_cells_at_every_level(form: str) -> None:
    vae = a_vae(form)
    cells = vae.tile_sample_min_height // vae.spatial_compression_ratio
    for level in (1, 2):
        low = lowered(vae, level)
        assert low.tile_sample_min_height // low.spatial_compression_ratio == cells


def test_levels_that_it_has_no_steps_for_are_refused() -> None:
    with pytest.raises(ValueError, match="level 0 to 3, not 4"):
        lowered(a_vae("2.1"), 4)
    with pytest.raises(ValueError, match="not -1"):
        lowered(a_vae("2.2"), -1)


def test_flipbook_s_previews_show_the_video_and_its_latents_come_back() -> None:
    """It was never taught a lower resolution. Distances are mean absolute differences in levels of
    255; on two clips of 33 frames level 0 gave 1.8 and 2.2, level 1 3.1 and 4.1."""
    vae: Any = load_family(locate("flipbook"), "cpu").vae  # type: ignore[attr-defined]
    video = clips(9, 1, 64, 1_000_001)
    latents = encoded(vae, video)

    def far(made: Tensor, true: Tensor) -> float:
        return float((made - true).abs().mean()) * 127.5

    preview = decoded(lowered(vae, 1), latents)
    assert far(preview, torch.nn.functional.avg_pool3d(video, (1, 2, 2))) < 5
    whole, half = (far(decoded(vae, _again(vae, latents, level)), video) for level in (0, 1))
    assert whole < half < 5


def _again(vae: Any, latents: Tensor, level: int) -> Tensor:
    low = lowered(vae, level)
    return encoded(low, decoded(low, latents))
