"""The three ways to keep keys and values answer alike, and take the bytes they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidplat.methods.hsa.kv_store import Fp8Store, Scaled, WholeStore, free_bytes, make_store

CPU = torch.device("cpu")
ROWS = torch.tensor([0, 5, 6])


def a_pair(tokens: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    made = torch.randn(2, 1, tokens, 3, 12, generator=torch.Generator().manual_seed(tokens))
    return made[0].clone().to(dtype), made[1].clone().to(dtype)


@pytest.mark.parametrize(("kind", "error"), [("full", 0.0), ("offload", 0.0), ("fp8", 0.07)])
def test_a_store_gives_back_the_old_rows_and_exactly_the_new_ones(kind: str, error: float) -> None:
    """e4m3 has 3 bits of mantissa: half a unit in the last place is 2^-4 = 6.25 % of the value."""
    store, (keys, values), (new_keys, new_values) = make_store(kind, CPU), a_pair(8), a_pair(3)
    expected = (
        keys.clone().index_copy(1, ROWS, new_keys),
        values.clone().index_copy(1, ROWS, new_values),
    )
    store.keep(0, keys, values)
    for _ in range(2):
        whole = store.refreshed(0, ROWS, new_keys, new_values)
        for given, wanted in zip(whole, expected, strict=True):
            assert torch.equal(given[:, ROWS], wanted[:, ROWS])
            assert ((given - wanted).abs() <= error * wanted.abs() + error / 448).all()
    assert store.layers() == 1


@pytest.mark.parametrize(("kind", "bytes_per_value"), [("full", 2), ("offload", 2), ("fp8", 1)])
def test_a_store_holds_the_bytes_of_its_type(kind: str, bytes_per_value: int) -> None:
    store = make_store(kind, CPU)
    for layer in range(4):
        store.keep(layer, *a_pair(8, torch.bfloat16))
    scales = 4 * 2 * 3 * 2 if kind == "fp8" else 0  # layers x (keys, values) x heads x 2 bytes
    assert store.nbytes == 4 * 2 * 8 * 36 * bytes_per_value + scales


def test_what_grows_beyond_twice_the_largest_value_of_its_head_is_cut_off() -> None:
    x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    held = Scaled.of(x)
    held.replace(torch.tensor([0]), torch.tensor(3.5).view(1, 1, 1, 1))
    assert held.whole().flatten().tolist() == pytest.approx([3.5, 2.0], rel=0.0625)
    held.replace(torch.tensor([0]), torch.tensor(100.0).view(1, 1, 1, 1))
    assert held.whole().flatten()[0] == pytest.approx(4.0)


def test_a_head_of_zeros_stays_zero_in_eight_bits() -> None:
    assert not Scaled.of(torch.zeros(1, 4, 2, 8, dtype=torch.bfloat16)).whole().any()


def test_a_part_of_a_larger_tensor_does_not_keep_the_rest_alive() -> None:
    """Fused projections give keys and values as thirds of one tensor."""
    fused = torch.randn(1, 8, 3, 36)
    store = WholeStore()
    store.keep(0, fused[..., :12], fused[..., 12:24])
    keys, _ = store.refreshed(0, ROWS, *a_pair(3))
    assert keys.untyped_storage().nbytes() == keys.nbytes < fused.untyped_storage().nbytes()


def test_on_a_cpu_offload_is_plain_storage() -> None:
    assert isinstance(make_store("offload", CPU), WholeStore)
    assert isinstance(make_store("fp8", CPU), Fp8Store)


def test_free_memory_is_a_fair_number() -> None:
    assert 2**20 < free_bytes(CPU) < 2**50
