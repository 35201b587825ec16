"""What is counted of a model: latent frames of a length, and back."""

from __future__ import annotations

from vidplat.methods.model_shape import decoded_frames, latent_frames


def test_latents_and_frames_count_back_and_forth() -> None:
    assert [latent_frames(n, 4) for n in (1, 5, 49, 81)] == [1, 2, 13, 21]
    assert [decoded_frames(k, 4) for k in (1, 2, 11, 21)] == [1, 5, 41, 81]
    assert latent_frames(decoded_frames(7, 8), 8) == 7
