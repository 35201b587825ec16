"""Block-causal models from their directory to finished jobs, on a tiny random one."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flipbook_training import causal
from tests.methods.on_model.test_seams import traces
from tests.source_videos import an_mp4, counted
from tests.workers.test_self_forcing import theirs
from tests.workers.tiny_models import a_tiny_causal
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused, ModelError, SpecError
from vidplat.methods.blocks import document, read
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.model_shape import Blocks
from vidplat.workers import Worker, check_spec, describe_model
from vidplat.workers.blocks.jobs import kept_share, plan_of
from vidplat.workers.blocks.memory import Window
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.edit import encoded
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Cancelled, Control, Made, Source
from vidplat.workers.models import catalogue, self_forcing
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Condition, MakesBlocks
from vidplat.workers.models.loading import load_family
from vidplat.workers.video import to_frames

PROMPT = "a red circle moves left"
SPEC = VideoSpec(
    32, 32, 21, 8, 4, 1.0, seed=3
)  # six latent frames of 4x4 tokens: three blocks of two
WIDE = replace(SPEC, width=64)
PLAN = StreamPlan(block=2, steps=(1000, 750, 500, 250), shift=3.0, window=Window(1, 4, 8))


@pytest.fixture(scope="module")
def directory(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_tiny_causal(tmp_path_factory.mktemp("causal") / "tiny-causal", tiny_wan)


@pytest.fixture(scope="module")
def family(directory: Path) -> Any:
    return load_family(locate(str(directory)), "cpu")


@pytest.fixture(scope="module")
def working(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A loaded worker whose jobs with a source get a clip of 21 frames."""
    clip = an_mp4(tmp_path_factory.mktemp("clips") / "a.mp4", counted(21), fps=8).read_bytes()
    made = Worker(str(directory), load_source=lambda job: clip)
    made.load()
    return made


def made(
    family: Any,
    steps: int = 4,
    *,
    spec: VideoSpec = SPEC,
    control: Control = Control(),
    **told: Any,
) -> Made:
    point = told.pop("point", OperatingPoint(steps))
    return generate(family, Ask(PROMPT, "", spec, point, control=control, **told))


def streamed(family: Any, plan: StreamPlan = PLAN, source: Any = None, **told: Any) -> torch.Tensor:
    condition = told.pop("condition", Condition(family.encode(PROMPT), None, 1.0))
    given = torch.zeros(1, 48, 6, 4, 4) if source is None else source
    return torch.cat(
        list(stream(family.transformer, condition, given, plan, seed=SPEC.seed, **told)), dim=2
    )


def a_job(worker: Worker, **changed: Any) -> Job:
    return replace(Job("1" * 32, PROMPT, "", SPEC, worker.ref, row=1), **changed)


def an_edit(worker: Worker, **changed: Any) -> Job:
    digest = hashlib.sha256(b"clip").hexdigest()
    return a_job(
        worker,
        **{"input_video": "/clips/a.mp4", "input_sha256": digest, "strength": 0.6, **changed},
    )


# --- finding and loading ------------------------------------------------------------------------


def test_a_directory_with_causal_json_is_a_causal_model(directory: Path, tiny_wan: Path) -> None:
    shape = describe_model(str(directory))[1]

    assert shape.family == "causal-wan"
    assert shape.blocks == Blocks(2, (1000, 750, 500, 250), 3.0, sink=1, recent=4, trained=8)
    assert (shape.defaults.num_inference_steps, shape.defaults.guidance_scale) == (4, 3.0)
    assert describe_model(str(tiny_wan))[1].blocks is None


def test_it_is_loaded_by_the_common_path(family: Any, tiny_wan: Path) -> None:
    assert family.name == "causal-wan"
    assert isinstance(family, MakesBlocks)
    assert not isinstance(load_family(locate(str(tiny_wan)), "cpu"), MakesBlocks)


def test_it_is_listed_beside_other_embedded_models(
    directory: Path, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the model that it was made from, the weights in common are stored once."""
    home = tmp_path / "models_data"
    shutil.copytree(tiny_wan, home / "tiny")
    a_tiny_causal(home / "tiny-causal", home / "tiny")
    monkeypatch.setattr(catalogue, "files", lambda package: tmp_path)

    listed = {listing.id: listing for listing in catalogue.list_models()}

    assert (home / "tiny-causal" / "shares.json").is_file() and not (
        home / "tiny-causal" / "vae"
    ).exists()
    assert listed["tiny-causal"].usable
    assert "21 frames at 8 fps, 4 steps, blocks of 2 latent frames" in listed["tiny-causal"].detail
    assert "blocks" not in listed["tiny"].detail
    assert load_family(locate("tiny-causal"), "cpu").name == "causal-wan"


def test_its_settings_decide_pixels_and_so_its_revision(directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(directory, tmp_path / "model"))
    before = describe_model(str(model))[0].revision
    describe_model.cache_clear()

    settings = json.loads((model / "causal.json").read_text())
    (model / "causal.json").write_text(json.dumps({**settings, "shift": 4.0}))

    assert describe_model(str(model))[0].revision != before


def test_settings_that_cannot_be_used_are_told(directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(directory, tmp_path / "model"))
    (model / "causal.json").write_text('{"block": 2}')
    with pytest.raises(
        ModelError, match=r"causal\.json.*it lacks sink, recent, trained, steps, shift"
    ):
        catalogue.read_shape(locate(str(model)))
    with pytest.raises(ModelError, match=r"it lacks sink"):
        load_family(locate(str(model)), "cpu")

    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": 0.9}))
    with pytest.raises(ModelError, match=r"is a Wan 2\.2 with a causal\.json"):
        locate(str(model))


def test_more_steps_than_it_has_are_refused_at_intake(directory: Path) -> None:
    shape = describe_model(str(directory))[1]
    check_spec(shape, SPEC)
    with pytest.raises(SpecError, match=r"num_inference_steps must be at most 4, .* not 5: use 4"):
        check_spec(shape, replace(SPEC, num_inference_steps=5))


def test_converted_self_forcing_weights_load_by_the_same_path(
    tiny_wan: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "self_forcing.safetensors"
    given = theirs(channels=48, text=64)  # as the tiny VAE and text encoder have them
    save_file({"generator_ema.model." + name: tensor for name, tensor in given.items()}, weights)

    self_forcing.write(weights, tiny_wan, tmp_path / "sf")

    shape = describe_model(str(tmp_path / "sf"))[1]
    assert shape.blocks == Blocks(3, (1000, 750, 500, 250), 5.0, sink=0, recent=21, trained=21)
    assert (shape.defaults.num_frames, shape.defaults.guidance_scale) == (81, 1.0)
    loaded: Any = load_family(locate(str(tmp_path / "sf")), "cpu")
    assert loaded.name == "causal-wan"
    assert torch.equal(loaded.transformer.blocks[1].norm2.weight, given["blocks.1.norm3.weight"])


def test_training_writes_settings_that_the_sampler_can_use(tiny_wan: Path) -> None:
    plain: Any = load_family(locate(str(tiny_wan)), "cpu")
    blocks = causal.settings(plain.scheduler)

    # What it was trained with: the sampler's usual window, clips of nine latent frames, the
    # solver's shift of 3.
    assert (blocks.frames, blocks.sink, blocks.recent, blocks.trained, blocks.shift) == (
        3,
        1,
        6,
        9,
        3.0,
    )
    assert plan_of(blocks, OperatingPoint(3)).steps == (1000, 667, 333)
    assert read(document(blocks)) == blocks


# --- videos from noise --------------------------------------------------------------------------


def test_a_video_is_what_the_driver_streams_bit_for_bit(family: Any) -> None:
    found = made(family)

    assert torch.equal(found.latents, streamed(family))
    assert found.frames.shape == (21, 32, 32, 3)
    assert (found.frames == family.decode(streamed(family))).all()
    assert found.steps_done == 4
    assert found.sigmas == (*PLAN.sigmas, 0.0)
    assert traces(family.transformer) == []


def test_fewer_steps_are_some_of_the_models_own(family: Any) -> None:
    assert torch.equal(made(family, 2).latents, streamed(family, replace(PLAN, steps=(1000, 500))))


def test_guidance_takes_both_branches(family: Any) -> None:
    guided = made(family, 2, spec=replace(SPEC, guidance_scale=3.0))

    condition = Condition(family.encode(PROMPT), family.encode(""), 3.0)
    assert torch.equal(
        guided.latents, streamed(family, replace(PLAN, steps=(1000, 500)), condition=condition)
    )
    assert not torch.equal(guided.latents, made(family, 2).latents)


def test_progress_is_every_pass(family: Any) -> None:
    told: list[tuple[str, int, int]] = []
    made(family, 3, control=Control(on_step=lambda *beat: told.append(beat)))

    # Three blocks of three steps and one pass that remembers.
    assert told == [
        ("encode", 0, 12),
        *(("denoise", done, 12) for done in range(13)),
        ("decode", 12, 12),
    ]


@pytest.mark.parametrize("passes", [0, 1, 5, 6])
def test_it_is_cancelled_at_the_next_pass(family: Any, passes: int) -> None:
    done = 0

    def beat(phase: str, step: int, steps: int) -> None:
        nonlocal done
        done = step

    with pytest.raises(Cancelled, match=f"cancelled after {passes} of 15 passes"):
        made(family, control=Control(on_step=beat, is_cancelled=lambda: done >= passes))

    # And the next video does not notice.
    assert traces(family.transformer) == []
    assert torch.equal(made(family, 1).latents, streamed(family, replace(PLAN, steps=(1000,))))


def test_a_deadline_takes_steps_from_the_blocks_to_come(family: Any) -> None:
    told: list[tuple[str, int, int]] = []
    late = Control(finish_by=time.time() - 1, min_steps=2, on_step=lambda *beat: told.append(beat))

    found = made(family, control=late)

    # The first block before anything is known of the pace: four steps; the two others the least
    # that is allowed.
    assert told[-1] == ("decode", 11, 11)
    assert found.steps_done == 3  # (4 + 2 + 2) / 3, rounded
    short = (*replace(PLAN, steps=(1000, 500)).sigmas, 0.0)
    assert found.sigmas == (*PLAN.sigmas, 0.0, *short, *short)
    # The first block is untouched, and with time enough nothing changes.
    assert torch.equal(found.latents[:, :, :2], streamed(family)[:, :, :2])
    assert torch.equal(
        made(family, control=Control(finish_by=time.time() + 3600)).latents, streamed(family)
    )


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (OperatingPoint(4, "hsa:preset=25"), "hsa is not made for"),
        (OperatingPoint(4, "unipc"), "unipc is not made for"),
        (OperatingPoint(4, "lipar"), "in an input video, and this row has none"),
        (OperatingPoint(5), "in 1 to 4 steps, not 5"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(
    family: Any, point: OperatingPoint, said: str
) -> None:
    with pytest.raises((SpecError, MethodRefused), match=said):
        made(family, point=point)


def test_whatever_needs_a_schedule_over_all_frames_is_refused(family: Any) -> None:
    with pytest.raises(SpecError, match="no schedule over all frames"):
        family.solver(4)


# --- edits --------------------------------------------------------------------------------------


def a_still_source() -> torch.Tensor:
    """Latents of a wide clip that repeats itself after the first frame, but for its leftmost
    tokens."""
    torch.manual_seed(4)
    latents = torch.randn(1, 48, 6, 4, 8)
    latents[..., 1:] = latents[:, :, :1, :, 1:]
    return latents


def test_an_edit_starts_from_its_source_at_its_strength(family: Any) -> None:
    latents = a_still_source()

    found = made(family, spec=WIDE, source=Source(latents, 0.6))

    # 0.6 of each of the model's steps.
    assert torch.equal(
        found.latents, streamed(family, replace(PLAN, steps=(600, 450, 300, 150)), latents)
    )
    assert found.facts == {}


@pytest.mark.parametrize(
    ("asked", "recovery"), [("auto", "noise-aware"), ("noisy", "noisy"), ("none", "none")]
)
def test_lipar_prunes_what_the_source_repeats(family: Any, asked: str, recovery: str) -> None:
    latents = a_still_source()
    rule = MaskRule(tau1=0.3, tau2=0.6, block=2, causal=True, min_keep=0.1)
    keep = keep_mask(latents[0], (1, 1), rule)
    assert 0 < int(keep[2:].sum()) < keep[2:].numel()
    lipar = OperatingPoint(2, f"lipar:tau1=0.3,tau2=0.6,min_keep=0.1,recovery={asked}")

    found = made(family, spec=WIDE, point=lipar, source=Source(latents, 0.6))

    plan = replace(PLAN, steps=(600, 300))
    assert torch.equal(found.latents, streamed(family, plan, latents, keep=keep, recovery=recovery))
    assert found.facts == {"kept_share": kept_share(keep, plan)}
    assert 1 / 3 <= found.facts["kept_share"] < 1.0  # of three blocks the first is whole
    assert traces(family.transformer) == []


def test_blocks_that_are_made_whole_count_whole() -> None:
    keep = torch.zeros(6, 2, 2, dtype=torch.bool)
    keep[2, 0] = True  # 2 of 4 tokens

    # Blocks 0 and 2 whole: 8 + 2 + 8 of 24.
    assert kept_share(keep, replace(PLAN, refresh=2)) == pytest.approx(18 / 24)
    assert kept_share(keep, PLAN) == pytest.approx(10 / 24)


def test_a_source_that_stands_still_is_copied_and_its_passes_are_counted(family: Any) -> None:
    still = a_still_source()[:, :, :1].expand(-1, -1, 6, -1, -1).clone()
    told: list[tuple[str, int, int]] = []

    found = made(
        family,
        spec=WIDE,
        point=OperatingPoint(2, "lipar"),
        source=Source(still, 0.6),
        control=Control(on_step=lambda *beat: told.append(beat)),
    )

    # The first block is made whole; the others repeat its last frame, three passes at once.
    assert told[1:-1] == [("denoise", done, 9) for done in (0, 1, 2, 3, 6, 9)]
    assert torch.equal(found.latents[:, :, 2:], found.latents[:, :, 1:2].expand(-1, -1, 4, -1, -1))


def test_a_window_without_the_frame_before_a_block_cannot_be_pruned(directory: Path) -> None:
    narrow: Any = load_family(locate(str(directory)), "cpu")
    narrow.blocks = replace(narrow.blocks, recent=2)
    with pytest.raises(MethodRefused, match="no block sees the frame before it"):
        made(narrow, point=OperatingPoint(2, "lipar"), source=Source(a_still_source(), 0.6))


# --- through a worker ---------------------------------------------------------------------------


def test_a_job_is_made_and_repeated_bit_for_bit(working: Worker, family: Any) -> None:
    told: list[tuple[str, int, int]] = []
    job = a_job(working)
    first = working.make(job, OperatingPoint(4), Control(lambda *beat: told.append(beat)))
    working.make(an_edit(working), OperatingPoint(2, "lipar"))
    again = working.make(job, OperatingPoint(4))

    assert first.video == again.video
    assert to_frames(first.video).shape == (21, 32, 32, 3)
    assert first.steps_done == 4 and first.meta["point"]["steps_done"] == 4
    assert told[-1] == ("mp4", 15, 15)
    assert "kept_share" not in first.metrics


def test_an_edit_with_lipar_tells_what_it_kept(working: Worker) -> None:
    told: list[tuple[str, int, int]] = []
    method = "lipar:tau1=10,tau2=10"  # no change is that large
    pruned = working.make(
        an_edit(working), OperatingPoint(3, method), Control(lambda *b: told.append(b))
    )
    whole = working.make(an_edit(working), OperatingPoint(3))

    assert pruned.metrics["kept_share"] == pytest.approx(1 / 3)  # the first of three blocks
    assert pruned.meta["metrics"]["kept_share"] == pytest.approx(1 / 3, abs=1e-6)
    assert pruned.steps_done == whole.steps_done == 3
    assert pruned.phases["source"] > 0
    assert told[0] == ("source", 0, 3) and told[-1] == ("mp4", 12, 12)
    assert pruned.video != whole.video
    # Its first level is that of its strength: 3 x 0.6 / (1 + 2 x 0.6).
    assert whole.meta["sigmas"][0] == pytest.approx(1.8 / 2.2, abs=1e-6)


def test_an_edit_by_frames_is_the_same_as_one_by_latents(family: Any) -> None:
    frames = counted(21)
    with torch.inference_mode():
        latents = family.encode_video(frames)

    source = encoded(family, frames, 0.5, SPEC)

    assert source.strength == 0.5
    assert torch.equal(source.latents, latents)


def test_a_worker_measures_itself(working: Worker) -> None:
    rows = working.calibrate()

    assert {row["stage"] for row in rows} >= {"encode", "denoise", "decode", "mp4"}
    assert {row["point"].steps for row in rows} == {2}


def test_a_model_of_one_step_measures_itself_too(directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(directory, tmp_path / "one"))
    blocks = Blocks(2, (1000.0,), 3.0, sink=1, recent=4, trained=8)
    (model / "causal.json").write_text(json.dumps(document(blocks)))
    (model / "defaults.json").write_text('{"width": 32, "height": 32, "num_frames": 5}')
    one = Worker(str(model))
    one.load()
    assert {row["point"].steps for row in one.calibrate()} == {1}
