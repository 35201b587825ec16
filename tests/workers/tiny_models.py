"""Tiny models with random weights, in the shape of flipbook: real diffusers directories, made in a
second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DEFAULTS = {
    "width": 32,
    "height": 32,
    "num_frames": 9,
    "fps": 8,
    "num_inference_steps": 4,
    "guidance_scale": 3.0,
}


def a_tiny_wan(
    directory: Path,
    *,
    layers: int = 2,
    heads: int = 2,
    vae_width: int = 8,
    scheduler: str = "FlowMatchEulerDiscreteScheduler",
    defaults: dict[str, Any] | None = None,
) -> Path:
    """Write a random Wan pipeline to `directory` and return it. The same arguments give the same
    weights."""
    import torch
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        UniPCMultistepScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    text = "a red blue green circle square moves left right slowly fast on dark"
    words = ["<pad>", "</s>", "<unk>", *text.split(" ")]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = UMT5Config(
        vocab_size=64,
        d_model=64,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        is_encoder_decoder=False,
    )
    solvers = {
        "FlowMatchEulerDiscreteScheduler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        "UniPCMultistepScheduler": lambda: UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }
    pipeline = WanPipeline(
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            eos_token="</s>",
            unk_token="<unk>",
            model_max_length=16,
        ),
        text_encoder=UMT5EncoderModel(encoder).eval(),
        vae=AutoencoderKLWan(
            base_dim=vae_width,
            z_dim=48,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            in_channels=12,
            out_channels=12,
            patch_size=2,
            is_residual=True,
            scale_factor_spatial=8,
            scale_factor_temporal=4,
            latents_mean=[0.0] * 48,
            latents_std=[1.0] * 48,
        ).eval(),
        scheduler=solvers[scheduler](),
        transformer=WanTransformer3DModel(
            patch_size=(1, 1, 1),
            num_attention_heads=heads,
            attention_head_dim=32,
            in_channels=48,
            out_channels=48,
            text_dim=64,
            ffn_dim=128,
            num_layers=layers,
        ).eval(),
    )
    pipeline.save_pretrained(directory, safe_serialization=True)
    (directory / "defaults.json").write_text(json.dumps(defaults or DEFAULTS), "utf-8")
    return directory


def a_tiny_causal(directory: Path, wan: Path, *, frames: int = 21, block: int = 2) -> Path:
    """Write a block-causal pipeline with the random transformer of `wan` to `directory` and return
    it.

    It makes blocks of two latent frames in one to four steps, and by default six latent frames.
    """
    from diffusers import WanTransformer3DModel

    from flipbook_training.causal import write
    from vidplat.methods.model_shape import Blocks

    model = WanTransformer3DModel.from_pretrained(wan / "transformer")
    write(
        model,
        wan,
        directory,
        Blocks(block, (1000.0, 750.0, 500.0, 250.0), 3.0, sink=1, recent=4, trained=8),
    )
    defaults = directory / "defaults.json"
    defaults.write_text(
        json.dumps({**json.loads(defaults.read_text("utf-8")), "num_frames": frames}), "utf-8"
    )
    return directory
