"""Counting the work of a video: what each stage's seconds are linear in, and the memory it needs.

Pure arithmetic on a model's shape, a spec and an operating point; `cost` learns how many seconds a
unit of each feature takes on a device. The FLOP count of one forward pass is, per block, with n
tokens, m text tokens, D width, E ffn width, and a multiply-add counted as 2:

    linear     12 n D^2 + 4 m D^2 + 4 n m D + 4 n D E     projections, cross attention, feed forward
    attention  4 n^2 D                                    QK^T and AV of self attention

which gives 283 TFLOP for Wan 2.1 1.3B at 480x832, 81 frames, of which 198 are attention.
Left to others: seconds (`cost`), quality (`profile`). Not promised: the text encoder's and VAE's
own FLOPs, which their configs do not tell here; they are counted in calls and pixels instead.

A model that makes a video block by block takes steps + 1 passes for each block, whose tokens attend
to those of a window: there n is the block's, and n^2 the block's times the window's.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods import blocks
from vidplat.methods.frames import kept_latents
from vidplat.methods.kinds import StoreSizes
from vidplat.methods.model_shape import ModelShape
from vidplat.methods.work import method_work, stored_bytes
from vidplat.stages import DECODE, DENOISE, ENCODE, LOAD, MP4, NETWORK, RECONSTRUCT, SOURCE, STORE

TILE_PIXELS = 256 * 256  # of a tile of the VAE
MP4_BYTES_PER_PIXEL = 0.05  # H.264 at the quality we write; detailed scenes take more


@dataclass(frozen=True)
class StageFeatures:
    """What the seconds of one stage are linear in. All zero: the stage does not happen."""

    calls: float = 0.0  # forwards, videos or requests
    linear_gflop: float = 0.0
    attention_gflop: float = 0.0
    megapixels: float = 0.0  # pixels decoded, synthesised or encoded, all frames together
    megabytes: float = 0.0  # read from disk or sent to the store

    @property
    def vector(self) -> tuple[float, float, float, float, float]:
        linear, attention = self.linear_gflop, self.attention_gflop
        return self.calls, linear, attention, self.megapixels, self.megabytes


def branches(spec: VideoSpec) -> int:
    """Forwards per denoising step: guidance above 1 needs one with the prompt and one without."""
    return 2 if spec.guidance_scale > 1.0 else 1


def decoded_frames(shape: ModelShape, spec: VideoSpec, point: OperatingPoint) -> int:
    """Frames that come out of the VAE: those of the latent frames that are made to the end."""
    whole = shape.latent_frames(spec.num_frames)
    kept = kept_latents(point.accelerator, whole)
    return spec.num_frames if kept == whole else min(spec.num_frames, shape.frames_of(kept))


def forward_gflop(shape: ModelShape, tokens: int) -> tuple[float, float]:
    """(linear, attention) GFLOP of one forward pass over `tokens` video tokens."""
    linear, attention = shape.block.flops(tokens)
    return shape.layers * linear / 1e9, shape.layers * attention / 1e9


def denoising(
    shape: ModelShape, spec: VideoSpec, point: OperatingPoint
) -> tuple[int, float, float]:
    """(forwards, linear GFLOP, attention GFLOP) of all steps of one video, no method taken off."""
    if shape.blocks is None:
        forwards = point.steps * branches(spec)
        linear, attention = forward_gflop(shape, shape.tokens(spec))
        return forwards, forwards * linear, forwards * attention
    frames, per_frame = shape.latent_frames(spec.num_frames), shape.tokens(spec, 1)
    each = (point.steps + 1) * branches(spec)
    linear = attention = 0.0
    spans = blocks.spans(shape.blocks, frames)
    for start, count in spans:
        tokens, seen = per_frame * count, per_frame * blocks.attended(shape.blocks, start, count)
        linear += each * forward_gflop(shape, tokens)[0]
        attention += each * shape.layers * 4 * tokens * seen * shape.width / 1e9
    return len(spans) * each, linear, attention


def features(
    shape: ModelShape,
    spec: VideoSpec,
    point: OperatingPoint,
    is_edit: bool = False,
    kept: float | None = None,
) -> dict[str, StageFeatures]:
    """The features of every stage of one video made at `point`, and of loading the model (`load`).

    `point.steps` are steps that are taken: an edit of strength s takes the last s of a longer
    schedule, so its denoising costs as much as any. Its source is counted in pixels of the video to
    be made, which the VAE encodes. `kept`: the share of tokens that run, see `method_work`.
    """
    forwards, linear, attention = denoising(shape, spec, point)
    left = method_work(shape, spec, point, kept)
    linear *= left.linear
    attention *= left.attention
    frame_megapixels = spec.width * spec.height / 1e6
    decoded = decoded_frames(shape, spec, point)
    missing = StageFeatures(calls=1, megapixels=frame_megapixels * (spec.num_frames - decoded))
    megapixels = frame_megapixels * spec.num_frames
    return {
        LOAD: StageFeatures(calls=1, megabytes=shape.parameter_bytes / 1e6),
        SOURCE: StageFeatures(calls=1, megapixels=megapixels) if is_edit else StageFeatures(),
        ENCODE: StageFeatures(calls=branches(spec)),
        DENOISE: StageFeatures(forwards, linear * left.overhead, attention * left.overhead),
        DECODE: StageFeatures(calls=1, megapixels=frame_megapixels * decoded),
        NETWORK: StageFeatures(),  # only where a draft is handed over
        RECONSTRUCT: missing if decoded < spec.num_frames else StageFeatures(),
        MP4: StageFeatures(calls=1, megapixels=megapixels),
        STORE: StageFeatures(calls=1, megabytes=megapixels * MP4_BYTES_PER_PIXEL),
    }


def is_gpu(device_class: str) -> bool:
    """Whether transformers compute there in bfloat16, as workers load them; float32 on a CPU."""
    return not device_class.startswith(("cpu", "fake"))


def needed_bytes(
    shape: ModelShape, spec: VideoSpec, point: OperatingPoint, device_class: str = "cpu"
) -> int:
    """Memory one video needs on a device beside the weights: the larger of denoising and decoding.

    Denoising keeps a dozen token-sized activations and two of the feed forward, and what the
    methods keep. Block by block, the activations are those of a block, and each branch remembers
    keys and values of a window, with another window made ready to be read. Decoding is in float32
    everywhere. Coarse, meant to be above.
    """
    at_once = frames = shape.latent_frames(spec.num_frames)
    values = 0
    if shape.blocks is not None:
        at_once = min(frames, shape.blocks.frames)
        held = shape.tokens(spec, min(frames, shape.blocks.sink + shape.blocks.recent))
        values = 2 * branches(spec) * held * shape.layers * 2 * shape.width
    values += shape.tokens(spec, at_once) * (12 * shape.width + 2 * shape.ffn_width)
    on_gpu = is_gpu(device_class)
    each = 2 if on_gpu else 4
    denoising = values * each
    if point.accelerator:
        tokens = shape.tokens(spec)
        sizes = StoreSizes(tokens, shape.width, shape.layers, branches(spec), each, on_gpu)
        denoising += stored_bytes(point.accelerator, sizes)
    return max(denoising, decoding_bytes(shape, spec))


def decoding_bytes(shape: ModelShape, spec: VideoSpec) -> int:
    """Memory that the VAE needs: about 96 channels of the frames of one latent step, four deep, and
    the video twice; or in tiles, which a worker takes where the whole does not fit, and which lie
    over each other, so that there is the video four times."""
    frame, video = spec.width * spec.height, spec.width * spec.height * spec.num_frames * 3 * 4

    def step(pixels: int) -> int:
        return 4 * shape.temporal_factor * pixels * 96 * 4

    return min(2 * video + step(frame), 4 * video + step(min(frame, TILE_PIXELS)))
