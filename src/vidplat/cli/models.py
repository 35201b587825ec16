"""`vidplat models`: which models can be used, and what is known of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from vidplat.cli import options, phrases, render
from vidplat.domain import ModelRef
from vidplat.methods.language import in_full
from vidplat.methods.model_shape import Blocks, ModelShape


def list_or_describe_models(
    model: Annotated[
        str | None, options.argument(metavar="MODEL", help="Say all about this one.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the models that can be used. With MODEL, its facts and profile."""
    from vidplat import platform

    if model is not None:
        reference, shape = platform.describe_model(model)
        _describe(reference, shape, json)
        return
    listings = platform.list_models()
    if json:
        render.print_json([asdict(listing) for listing in listings])
        return
    render.print_table(
        ["MODEL", "FROM", "USABLE", "ABOUT"],
        [
            (
                listing.id,
                listing.origin,
                "ok" if listing.usable else "no",
                listing.detail
                + (f"; missing {', '.join(listing.missing)}" if listing.missing else ""),
            )
            for listing in listings
        ],
        state="USABLE",
        wide="ABOUT",
    )
    render.say(
        "a folder with a diffusers pipeline, or a hub id, can be given to --model as well",
        style="dim",
    )


def _describe(model: ModelRef, shape: ModelShape, json: bool) -> None:
    if json:
        render.print_json({"model": model.id, "revision": model.revision, **asdict(shape)})
        return
    spec = shape.defaults
    render.print_facts(
        [
            ("model", model.id),
            ("revision", model.revision),
            ("family", shape.family),
            (
                "size",
                f"{shape.layers} layers of width {shape.width}, "
                f"{phrases.size(shape.parameter_bytes)} of weights",
            ),
            ("default", f"{spec.width}x{spec.height}, {spec.num_frames} frames at {spec.fps} fps"),
            (
                "quality",
                f"full at {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}",
            ),
            ("frames", f"{shape.temporal_factor}k+1"),
            *([] if shape.blocks is None else [("blocks", _of_blocks(shape.blocks))]),
            (
                "profile",
                f"{len(shape.profile)} measured points"
                if shape.profile
                else "not measured: steps alone",
            ),
        ]
    )
    if shape.profile:
        render.say()
        render.print_table(
            ["STEPS", "METHOD", "QUALITY", "PSNR", "PROMPT FIT", "SAMPLES"],
            [
                (
                    phrases.percent(point.steps_fraction),
                    in_full(point.method) if point.method else "steps",
                    f"{point.quality:.3f} ± {point.quality_spread:.3f}",
                    f"{point.psnr_db:.1f} dB" if point.psnr_db is not None else None,
                    phrases.percent(point.prompt_fit),
                    f"{point.samples:,}",
                )
                for point in shape.profile
            ],
            right=("STEPS", "QUALITY", "PSNR", "PROMPT FIT", "SAMPLES"),
        )


def _of_blocks(blocks: Blocks) -> str:
    seen = f"the last {blocks.recent} latent frames" + (
        f" and the first {blocks.sink}" if blocks.sink else ""
    )
    return (
        f"{blocks.frames} latent frames at a time, 1 to {len(blocks.steps)} steps each, "
        f"seeing {seen}"
    )
