"""Where memory is short: what a worker gives back, and what it does before it gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import a_job
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import OutOfMemoryError
from vidplat.machines import free_memory_bytes
from vidplat.workers import Worker, devices
from vidplat.workers.draft import Rendered
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.loading import load_family, weight_bytes

SPEC = VideoSpec(32, 32, 9, 8, 2, 3.0, seed=1)


@pytest.fixture
def worker(tiny_wan: Path) -> Worker:
    made = Worker(str(tiny_wan))
    made.load()
    return made


def made_by(worker: Worker) -> Rendered:
    made = worker.make(a_job(spec=SPEC, model=worker.ref), OperatingPoint(2))
    assert isinstance(made, Rendered)
    return made


def on_another_device(family: Any, part: str = "text_encoder") -> list[str]:
    """The CPU by a name that is not its own, as a GPU would be; the places that a part is brought
    to from now on."""
    places: list[str] = []
    network = getattr(family, part)
    move = network.to
    family.device = "cpu:0"
    network.to = lambda place: (places.append(place), move(place))[1]
    return places


def short_of_memory(function: Any, when: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        if when():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **kwargs)

    return called


def test_a_video_that_cannot_be_decoded_whole_is_decoded_in_tiles(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = worker.loaded.family
    before, vae = made_by(worker), family.vae
    monkeypatch.setattr(vae, "decode", short_of_memory(vae.decode, lambda: not vae.use_tiling))

    after = made_by(worker)

    assert after.metrics["decoded_in_tiles"] == 1.0
    assert "decoded_in_tiles" not in before.metrics
    assert after.video == before.video  # of one tile
    assert not vae.use_tiling  # the next one is tried whole


def test_where_denoising_runs_out_the_text_encoder_leaves_the_device_and_nothing_changes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = worker.loaded.family
    before = made_by(worker)
    places = on_another_device(family)
    spare = family.spare_bytes
    text_encoder = sum(weight.nbytes for weight in family.text_encoder.parameters())
    monkeypatch.setattr(family, "velocity", short_of_memory(family.velocity, lambda: not places))

    after = made_by(worker)
    family.encode("a text that is new")

    assert after.video == before.video
    assert places == ["cpu", "cpu:0", "cpu"]  # and to the device for each new text
    assert family.spare_bytes == spare - text_encoder


def test_where_that_is_too_little_each_part_is_on_the_device_for_its_turn(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = worker.loaded.family
    before = made_by(worker)
    places = on_another_device(family, "vae")
    monkeypatch.setattr(family, "velocity", short_of_memory(family.velocity, lambda: not places))

    after = made_by(worker)

    assert after.video == before.video
    assert places == ["cpu", "cpu:0"]  # away while denoising, there for the end
    assert family.spare_bytes == 0
    # and the next video begins with the others away again
    made_by(worker)
    assert places == ["cpu", "cpu:0", "cpu", "cpu:0"]


def test_weights_that_have_no_room_together_are_loaded_for_their_turns(
    tiny_wan: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = locate(str(tiny_wan))
    need = weight_bytes(located, "cpu:0")
    room = {"cpu:0": need - 1, "cpu": 2 * need}
    monkeypatch.setattr(devices, "free_bytes", room.__getitem__)

    family: Any = load_family(located, "cpu:0")

    assert family.spare_bytes == 0
    assert family.device == "cpu:0"
    text = worker.loaded.family.encode("a red circle")
    assert torch.equal(family.encode("a red circle"), text)
    # but not where the CPU's memory is too small as well
    room["cpu"] = need - 1
    with pytest.raises(OutOfMemoryError, match="take a larger machine"):
        load_family(located, "cpu:0")


def test_with_nothing_left_to_give_back_the_job_is_out_of_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = worker.loaded.family
    monkeypatch.setattr(family, "velocity", short_of_memory(family.velocity, lambda: True))
    for device in ("cpu", "cpu:0"):  # nothing to give back; given back, and still too little
        family.device = device
        with pytest.raises(OutOfMemoryError, match="out of memory at 32x32, 9 frames"):
            made_by(worker)


def test_a_model_is_not_loaded_where_its_weights_have_no_room(
    tiny_wan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = locate(str(tiny_wan))
    vae = located.weights["vae"].values
    others = sum(each.values for each in located.weights.values()) - vae
    assert weight_bytes(located, "cpu") == 4 * (others + vae)
    assert weight_bytes(located, "cuda:1") == 2 * others + 4 * vae
    monkeypatch.setattr(devices, "free_bytes", lambda device: 1_000_000)
    with pytest.raises(OutOfMemoryError, match=r"take 0.00186 GB in float32, and cpu has 0.001 GB"):
        load_family(located, "cpu")


def test_free_memory_counts_what_caches_would_give_up() -> None:
    assert 2**20 < free_memory_bytes() < 2**50
