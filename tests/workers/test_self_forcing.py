"""Self-Forcing's weights under diffusers' names: every tensor finds its place, and nothing unsafe
is read.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidplat.errors import ModelError
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.models.family import Condition
from vidplat.workers.models.self_forcing import converted, diffusers_name, load_self_forcing, sizes

WIDTH, FFN, TEXT, FREQ, CHANNELS = 128, 160, 24, 16, 16


def theirs(layers: int = 2, channels: int = CHANNELS, text: int = TEXT) -> dict[str, Tensor]:
    """A state dictionary with the names of Wan's own repository, in Wan 2.1's shapes but for
    width."""
    torch.manual_seed(2)

    def linear(name: str, out: int, inner: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": torch.randn(out, inner) * inner**-0.5,
            f"{name}.bias": torch.randn(out) * 0.1,
        }

    state = {
        "patch_embedding.weight": torch.randn(WIDTH, channels, 1, 2, 2) * 0.1,
        "patch_embedding.bias": torch.randn(WIDTH) * 0.1,
        **linear("text_embedding.0", WIDTH, text),
        **linear("text_embedding.2", WIDTH, WIDTH),
        **linear("time_embedding.0", WIDTH, FREQ),
        **linear("time_embedding.2", WIDTH, WIDTH),
        **linear("time_projection.1", 6 * WIDTH, WIDTH),
        **linear("head.head", channels * 4, WIDTH),
        "head.modulation": torch.randn(1, 2, WIDTH),
    }
    for layer in range(layers):
        block = f"blocks.{layer}"
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                state |= linear(f"{block}.{attention}.{part}", WIDTH, WIDTH)
            for norm in ("norm_q", "norm_k"):
                state[f"{block}.{attention}.{norm}.weight"] = 1 + 0.1 * torch.randn(WIDTH)
        state |= {f"{block}.norm3.{kind}": 0.5 + torch.rand(WIDTH) for kind in ("weight", "bias")}
        state |= linear(f"{block}.ffn.0", FFN, WIDTH) | linear(f"{block}.ffn.2", WIDTH, FFN)
        state[f"{block}.modulation"] = torch.randn(1, 6, WIDTH)
    return state


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("blocks.7.self_attn.o.weight", "blocks.7.attn1.to_out.0.weight"),
        ("blocks.7.cross_attn.norm_k.weight", "blocks.7.attn2.norm_k.weight"),
        ("blocks.7.norm3.bias", "blocks.7.norm2.bias"),
        ("blocks.29.ffn.2.weight", "blocks.29.ffn.net.2.weight"),
        ("blocks.0.modulation", "blocks.0.scale_shift_table"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.weight", "proj_out.weight"),
        ("time_projection.1.bias", "condition_embedder.time_proj.bias"),
    ],
)
def test_names_become_diffusers(name: str, ours: str) -> None:
    assert diffusers_name(name) == ours


@pytest.mark.parametrize(
    "name", ["blocks.0.norm1.weight", "blocks.0.ffn.1.weight", "img_emb.proj.0.weight", "head"]
)
def test_a_strange_tensor_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        diffusers_name(name)


def test_the_names_are_those_of_diffusers_own_converter() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    expected = convert_wan_transformer_to_diffusers(theirs())
    found = converted(theirs())

    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_sizes_are_read_from_the_shapes() -> None:
    found = sizes(converted(theirs(layers=3)))

    assert found == {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 1,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": TEXT,
        "freq_dim": FREQ,
        "ffn_dim": FFN,
        "num_layers": 3,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
    }


@pytest.mark.parametrize("prefix", ["", "model.", "generator_ema.model."])
def test_a_file_becomes_a_model_that_streams(tmp_path: Path, prefix: str) -> None:
    path, state = tmp_path / "weights.safetensors", theirs()
    save_file({prefix + name: tensor for name, tensor in state.items()}, path)

    model = load_self_forcing(path)

    # The converted network has every tensor exactly once, with their values.
    assert len(model.state_dict()) == len(state)
    assert torch.equal(model.blocks[1].norm2.weight, state["blocks.1.norm3.weight"])
    assert torch.equal(model.blocks[0].attn2.to_k.bias, state["blocks.0.cross_attn.k.bias"])
    condition = Condition(torch.randn(1, 3, TEXT), None, 1.0)
    blocks = list(stream(model, condition, torch.randn(1, CHANNELS, 6, 4, 4), StreamPlan()))
    assert [tuple(block.shape) for block in blocks] == [(1, CHANNELS, 3, 4, 4)] * 2
    assert all(bool(block.isfinite().all()) for block in blocks)


def test_the_loaded_model_is_diffusers_own(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    path = tmp_path / "weights.safetensors"
    save_file(theirs(), path)
    model = load_self_forcing(path)
    stock = WanTransformer3DModel(**sizes(converted(theirs()))).eval()
    stock.load_state_dict(converted(theirs()))
    x, text = torch.randn(1, CHANNELS, 2, 4, 4), torch.randn(1, 3, TEXT)

    with torch.inference_mode():
        answers = [
            of(
                hidden_states=x,
                timestep=torch.tensor([400.0]),
                encoder_hidden_states=text,
                return_dict=False,
            )[0]
            for of in (model, stock)
        ]

    assert torch.equal(*answers)


def test_other_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pickles can run anything"):
        load_self_forcing(tmp_path / "self_forcing_dmd.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"not one")
    with pytest.raises(ModelError, match=r"cannot read broken.safetensors"):
        load_self_forcing(tmp_path / "broken.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"no patch_embedding.weight"):
        load_self_forcing(tmp_path / "other.safetensors")
    missing = theirs()
    del missing["blocks.1.ffn.2.weight"]
    save_file(missing, tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match=r"does not fit its own sizes: blocks.1.ffn.net.2.weight"):
        load_self_forcing(tmp_path / "missing.safetensors")
