"""Wan 2.1, Wan 2.2 and our flipbook in normal form: `WanPipeline`, taken apart.

Each method repeats what one part of diffusers' `WanPipeline.__call__` does, with the same calls in
the same order, so that with no method installed the latents equal the stock pipeline's bit for bit
for the same seed, solver and steps. One difference is meant: the stock pipeline repairs mis-encoded
text when `ftfy` happens to be installed; here a video must not depend on which packages a worker
has, so it never is.

On a CPU all parts are float32. On CUDA the transformer and the text encoder are bfloat16, except
the parts that diffusers keeps in float32, and the VAE is float32.

Wan 2.2: with `boundary_ratio`, the second transformer takes the steps below that time; with
`expand_timesteps` every token gets a time of its own. Images as input are not handled here.
"""

from __future__ import annotations

import html
import re
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from vidplat.domain import VideoSpec
from vidplat.errors import JobError, ModelError
from vidplat.methods.model_shape import latent_frames
from vidplat.methods.solver import Solver
from vidplat.workers.devices import is_out_of_memory
from vidplat.workers.fast_decode import use_onednn
from vidplat.workers.models.catalogue import text_tokens
from vidplat.workers.models.family import Condition
from vidplat.workers.models.low_vae import decoded, lowered
from vidplat.workers.models.model_files import ModelFiles

_TEXTS = 256  # whose embeddings are kept


def clean_text(text: str) -> str:
    """Text as the stock pipeline reads it: HTML entities resolved, white space single blanks."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text)).strip()).strip()


class WanFamily:
    """A loaded Wan pipeline. Build it with `load`."""

    name = "wan"
    _parts_may_wait = True  # all of them, for their turn

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        transformer: Any,
        vae: Any,
        scheduler: Any,
        text_length: int,
        transformer_2: Any = None,
        boundary_ratio: float | None = None,
        expand_timesteps: bool = False,
        device: str | None = None,  # None: where the transformer is
    ) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.transformer, self.transformer_2, self.vae = transformer, transformer_2, vae
        self.scheduler = scheduler
        self.text_length = text_length
        self.boundary_ratio, self.expand_timesteps = boundary_ratio, expand_timesteps
        self.temporal_factor = int(vae.config.scale_factor_temporal)
        self.device = str(transformer.device) if device is None else device
        self.in_tiles = False
        self._waiting: list[Any] = []  # parts that are on the device for their turn alone
        self._at_work: Any = None  # the one of all parts whose turn it is
        self._low_vaes: dict[int, Any] = {}
        self._encoded = lru_cache(_TEXTS)(self._encode)

    @classmethod
    def load(cls, located: ModelFiles, device: str, *, in_turns: bool = False) -> WanFamily:
        """Read all parts from disk, in whatever float type they were stored. With `in_turns` they
        wait in the CPU's memory, and each comes to the device when it is needed."""
        import diffusers
        import transformers
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
        from transformers import AutoTokenizer
        from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

        diffusers.utils.logging.disable_progress_bar()  # a worker's stderr belongs to its platform
        transformers.utils.logging.disable_progress_bar()
        wide = torch.float32
        narrow = torch.bfloat16 if device.startswith("cuda") else wide
        index, parts = located.index, located.parts

        def network(kind: Any, part: str, dtype: torch.dtype) -> Any:
            loaded, told = kind.from_pretrained(
                parts[part],
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                variant=located.weights[part].variant,
                output_loading_info=True,
            )
            if missing := sorted(told["missing_keys"]):  # they would be random numbers
                raise ModelError(f"the weights of {part} lack {len(missing)}, {missing[0]} first")
            return loaded.to("cpu" if in_turns else device).eval().requires_grad_(False)

        second = "transformer_2"
        vae = network(AutoencoderKLWan, "vae", wide)
        if device == "cpu":
            use_onednn(vae.decoder)
        made = cls(
            tokenizer=AutoTokenizer.from_pretrained(parts["tokenizer"], local_files_only=True),
            text_encoder=network(UMT5EncoderModel, "text_encoder", narrow),
            transformer=network(WanTransformer3DModel, "transformer", narrow),
            transformer_2=network(WanTransformer3DModel, second, narrow)
            if second in parts
            else None,
            vae=vae,
            scheduler=getattr(diffusers, str(index["scheduler"][1])).from_pretrained(
                parts["scheduler"]
            ),
            text_length=text_tokens(located),
            boundary_ratio=index.get("boundary_ratio"),
            expand_timesteps=bool(index.get("expand_timesteps", False)),
            device=device,
        )
        if in_turns:
            made._waiting = made._parts
        return made

    def encode(self, text: str) -> torch.Tensor:
        """See `Family`. Prompts repeat, and the negative prompt nearly always does."""
        return self._encoded(text)

    def _encode(self, text: str) -> torch.Tensor:
        """Embeddings (1, L, D); see `WanPipeline._get_t5_prompt_embeds`."""
        tokens = self.tokenizer(
            [clean_text(text)],
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)
        self._turn_to(self.text_encoder)
        states: torch.Tensor = self.text_encoder(ids, mask).last_hidden_state
        self._turn_to(self.transformer)
        length = int(mask.gt(0).sum())
        kept = torch.zeros_like(states)
        kept[:, :length] = states[:, :length]
        return kept.to(self.transformer.dtype)

    @property
    def _parts(self) -> list[Any]:
        return [self.text_encoder, *self.transformers, self.vae]

    @property
    def spare_bytes(self) -> int:
        """See `Family`: the text encoder's, and of all parts what is not the largest."""
        if self.device == "cpu":
            return 0
        sizes: list[int] = [
            sum(weight.nbytes for weight in part.parameters()) for part in self._parts
        ]
        spared = sizes[0] if self._waiting else 0
        if not self._parts_may_wait:
            return sizes[0] - spared
        return 0 if len(self._waiting) > 1 else max(0, sum(sizes) - max(sizes) - spared)

    def spare(self) -> bool:
        """First the text encoder waits in the CPU's memory, then every part but the one at work, as
        in diffusers' model offload."""
        if not self.spare_bytes:
            return False
        self._waiting = self._parts if self._waiting else [self.text_encoder]
        for part in self._waiting:
            part.to("cpu")
        self._at_work = None
        return True

    def _turn_to(self, part: Any) -> None:
        """Bring a part to the device, in the place of one that waits for its turn again."""
        if not self._waiting or part is self._at_work:
            return
        if any(each is self._at_work for each in self._waiting):
            self._at_work.to("cpu")
        part.to(self.device)
        self._at_work = part

    def noise(self, spec: VideoSpec) -> torch.Tensor:
        """See `Family`: drawn on the CPU and moved."""
        cell = self.vae.config.scale_factor_spatial
        shape = (
            1,
            self.transformer.config.in_channels,
            latent_frames(spec.num_frames, self.temporal_factor),
            spec.height // cell,
            spec.width // cell,
        )
        generator = torch.Generator("cpu").manual_seed(spec.seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(self.device)

    @property
    def transformers(self) -> tuple[Any, ...]:
        both = (self.transformer, self.transformer_2)
        return both[:1] if self.transformer_2 is None else both

    def grid(self, latents: torch.Tensor) -> tuple[int, int, int]:
        """Tokens per axis of latents (1, C, F, H, W)."""
        sizes = zip(latents.shape[2:], self.transformer.config.patch_size, strict=True)
        frames, rows, columns = (size // patch for size, patch in sizes)
        return frames, rows, columns

    def solver(self, steps: int, scheduler: Any = None) -> Solver:
        return Solver(scheduler or self.scheduler, steps, self.device)

    def velocity(self, latents: torch.Tensor, solver: Solver, condition: Condition) -> torch.Tensor:
        """A call with the text and, when guided, one with the negative text, as the stock loop.

        The two are not put into one batch: sums then run in another order, and the latents would
        differ from the stock ones in their last bits.
        """
        model = self._model_at(solver)
        self._turn_to(model)
        inputs = {
            "hidden_states": latents.to(model.dtype),
            "timestep": self._timestep(latents, solver.timestep),
            "return_dict": False,
        }
        with _cache_context(model, "cond", solver):
            velocity: torch.Tensor = model(encoder_hidden_states=condition.text, **inputs)[0]
        if condition.negative is None:
            return velocity
        with _cache_context(model, "uncond", solver):
            unguided: torch.Tensor = model(encoder_hidden_states=condition.negative, **inputs)[0]
        return unguided + condition.guidance_scale * (velocity - unguided)

    def _model_at(self, solver: Solver) -> Any:
        """Wan 2.2 has a second transformer for times below a boundary; all others have one."""
        ratio = self.boundary_ratio
        is_early = ratio is None or solver.timestep >= ratio * solver.train_timesteps
        return self.transformer if is_early else self.transformer_2

    def _timestep(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """(1,), or with `expand_timesteps` (1, tokens)."""
        if not self.expand_timesteps:
            return timestep.expand(latents.shape[0])
        mask = torch.ones_like(latents[0, 0, :, ::2, ::2])
        return (mask * timestep).flatten().unsqueeze(0).expand(latents.shape[0], -1)

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """See `TakesVideo`; the posterior's mode, as in `WanVideoToVideoPipeline`."""
        self._turn_to(self.vae)
        pixels = torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2)[None]
        return self.latents_of(pixels.to(self.vae.device, torch.float32) / 255.0)

    def latents_of(self, frames: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Clean normalised latents (1, C, F, H, W) float32 of frames (1, 3, 4(F-1)+1, rows,
        columns) in [0, 1], whose height and width are 1 / 2^level of the video's."""
        self._turn_to(self.vae)
        vae = self._vae_at(level)
        found = vae.encode((frames * 2.0 - 1.0).to(vae.dtype)).latent_dist.mode().float()
        mean, inverse_std = self._scale(found)
        latents: torch.Tensor = (found - mean) * inverse_std
        return latents

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Frames (frames, rows, columns, 3) uint8 RGB."""
        shown = self.shown(latents)[0].mul(255).round().to(torch.uint8)
        frames: np.ndarray = shown.permute(1, 2, 3, 0).contiguous().cpu().numpy()
        return frames

    def shown(self, latents: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Frames (1, 3, 4(F-1)+1, rows, columns) in [0, 1] of latents (1, C, F, H, W), of 1 /
        2^level of the height and width. Raises `JobError` for values that are not finite."""
        self._turn_to(self.vae)
        vae = self._vae_at(level)
        latents = latents.to(vae.device, vae.dtype)
        mean, inverse_std = self._scale(latents)
        whole = latents / inverse_std + mean
        try:
            video = self._decoded(vae, whole, level)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            video = None
        self.in_tiles = video is None
        if video is None:  # out of the handler, whose traceback holds what was made so far
            vae.clear_cache()
            if self.device != "cpu":
                torch.cuda.empty_cache()
            vae.enable_tiling()
            try:
                video = self._decoded(vae, whole, level)
            finally:
                vae.disable_tiling()
        if not bool(torch.isfinite(video).all()):
            raise JobError("the decoder gave values that are not finite")
        frames: torch.Tensor = (video * 0.5 + 0.5).clamp(0, 1)
        return frames

    def _decoded(self, vae: Any, latents: torch.Tensor, level: int) -> torch.Tensor:
        """At level 0 a frame at a time, as the stock pipeline does."""
        video: torch.Tensor = (
            decoded(vae, latents) if level else vae.decode(latents, return_dict=False)[0]
        )
        return video

    def _scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and inverse standard deviation of the latents' channels, (1, C, 1, 1, 1), on the
        device and in the type of `like`."""
        config = self.vae.config
        mean, std = (
            torch.tensor(values).view(1, config.z_dim, 1, 1, 1).to(like)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1.0 / std

    def _vae_at(self, level: int) -> Any:
        """The VAE, or its copy for a lower resolution, which is made when first asked for."""
        if level and level not in self._low_vaes:
            self._low_vaes[level] = lowered(self.vae, level)
        return self._low_vaes[level] if level else self.vae


def _cache_context(model: Any, branch: str, solver: Solver) -> AbstractContextManager[None]:
    """Tells hooks on the model, diffusers' caches or our methods, the branch and step of a call.

    The stock loop opens it always; without hooks it has no effect, but walks over all modules at
    every call and imports torch's compiler at the first (1 s).
    """
    if not model.is_cache_enabled and not hasattr(model, "_diffusers_hook"):
        return nullcontext()
    context: AbstractContextManager[None] = model.cache_context(
        branch, step_index=solver.index, sigma=solver.sigma, num_inference_steps=solver.total
    )
    return context
