"""Training a block-causal model sees what the sampler's memory shows, and goes on where it
stopped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from flipbook_training import causal, text
from flipbook_training.causal import groups, teacher_forced, train_causal, velocity
from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import a_tiny_transformer
from vidplat.methods.protocol import Grid
from vidplat.workers.blocks.memory import BlockMemory, Window
from vidplat.workers.models.catalogue import locate


def test_a_noisy_block_sees_itself_and_the_clean_frames_before_it() -> None:
    # Window 1 + 4, block 3: beside its own three frames a block sees the first and the one before
    # it.
    assert groups(7, 3, Window(1, 4, 21)) == [
        ([0, 1, 2], [0, 1, 2]),
        ([3, 4, 5], [0, 2, 3, 4, 5]),
        ([6], [0, 3, 4, 5, 6]),  # a block of one has room for three
        ([7, 8, 9], [7, 8, 9]),  # noisy ones: their own noise, and clean frames 0..6
        ([10, 11, 12], [0, 2, 10, 11, 12]),
        ([13], [0, 3, 4, 5, 13]),
    ]


def test_teacher_forcing_answers_as_the_samplers_memory_does() -> None:
    twin = a_tiny_transformer("wan", frames=9, rows=4, columns=6)
    clean, noisy = torch.randn(2, *twin.latents.shape)
    sigma = torch.tensor([[0.9] * 3 + [0.5] * 3 + [0.2] * 3])
    window, said = Window(1, 5, 21), twin.inputs["encoder_hidden_states"]

    with torch.inference_mode():
        with teacher_forced(twin.model, Grid(9, 4, 6), window):
            forced = velocity(twin.model, clean, noisy, sigma, said)
        memory = BlockMemory(twin.model, 4, 6, window)
        sampled = []
        with memory.installed():
            for start in range(0, 9, 3):
                part = slice(start, start + 3)
                memory.begin(start, 3)
                for latents, time in (
                    (noisy[:, :, part], 1000 * sigma[:, start]),
                    (clean[:, :, part], torch.zeros(1)),
                ):
                    with twin.model.cache_context("cond", step_index=0):
                        made = twin.model(
                            hidden_states=latents,
                            timestep=time,
                            encoder_hidden_states=said,
                            return_dict=False,
                        )[0]
                    if memory.mode == "denoise":
                        sampled.append(made)
                    memory.mode = "remember"
                memory.finish()

    torch.testing.assert_close(torch.cat(sampled, dim=2), forced, atol=1e-4, rtol=1e-4)
    assert traces(twin.model) == []


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    start = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=1,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=text.WIDTH,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        rope_max_seq_len=32,
    )
    tokenizer, encoder = text.new_tokenizer(), text.new_text_encoder().eval()
    torch.save(
        {"latents": torch.randn(5, 4, 4, 2, 2).half(), "captions": ["a red circle"] * 5},
        tmp_path / "latents-64-33.pt",
    )

    def run(folder: str, dies_after: int | None = None) -> torch.Tensor:
        steps_run = causal.run_steps
        done = 0

        def dying(name: str, learner: object, **told: object) -> None:
            one_step = told["one_step"]

            def counted(step: int) -> dict[str, float]:
                nonlocal done
                if dies_after is not None and done == dies_after:
                    raise KeyboardInterrupt
                done += 1
                return one_step(step)  # type: ignore[operator,no-any-return]

            steps_run(name, learner, **{**told, "one_step": counted, "every_s": 0.0})  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(causal, "run_steps", dying)
            made = train_causal(
                start,
                tokenizer,
                encoder,
                tmp_path,
                tmp_path / folder,
                steps=6,
                say=lambda line: None,
            )
        return made.proj_out.weight.detach().clone()

    unbroken = run("a")
    with pytest.raises(KeyboardInterrupt):
        run("b", dies_after=4)
    assert torch.equal(run("b"), unbroken)
    assert not torch.equal(unbroken, start.proj_out.weight)


def test_without_clips_it_says_what_to_run_first(tmp_path: Path) -> None:
    twin = a_tiny_transformer("wan")
    with pytest.raises(FileNotFoundError, match="train flipbook first"):
        train_causal(
            twin.model,
            text.new_tokenizer(),
            text.new_text_encoder(),
            tmp_path,
            tmp_path,
            steps=1,
            say=lambda line: None,
        )


def test_what_is_written_does_not_tell_where_it_was_made(tmp_path: Path) -> None:
    flipbook = locate("flipbook").root
    model = WanTransformer3DModel.from_pretrained(flipbook / "transformer")
    blocks = causal.settings(FlowMatchEulerDiscreteScheduler())

    causal.write(model, flipbook, tmp_path / "made", blocks)

    config = (tmp_path / "made" / "transformer" / "config.json").read_text("utf-8")
    assert str(flipbook) not in config and '"_name_or_path": "flipbook"' in config
