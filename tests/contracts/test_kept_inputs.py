"""Copies of input videos in every store: by content, whole, and checked when read."""

from __future__ import annotations

import hashlib

import pytest

from tests.contracts.test_stores import store
from vidplat.errors import InputError
from vidplat.storage.inputs import input_key, is_kept, keep_input, load_input
from vidplat.storage.stores import Store

__all__ = ["store"]  # the fixture

DATA = bytes(range(256)) * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_a_kept_video_is_found_by_its_content(store: Store) -> None:
    assert not is_kept(store, SHA256)
    keep_input(store, SHA256, DATA)
    assert is_kept(store, SHA256)
    assert load_input(store, SHA256) == DATA


def test_keeping_it_again_changes_nothing(store: Store) -> None:
    keep_input(store, SHA256, DATA)
    keep_input(store, SHA256, DATA)
    assert list(store.list("inputs")) == [input_key(SHA256)]


def test_a_video_that_changed_meanwhile_is_not_kept_under_the_old_name(store: Store) -> None:
    with pytest.raises(InputError, match="changed while it was read"):
        keep_input(store, SHA256, DATA + b"!")
    assert not is_kept(store, SHA256)


def test_a_copy_that_is_gone_says_what_to_do(store: Store) -> None:
    with pytest.raises(InputError, match=r"is gone from .*submit the prompts again, then retry"):
        load_input(store, SHA256)


def test_a_damaged_copy_is_not_used_and_is_written_again(store: Store) -> None:
    # given what a power cut leaves
    store.put(input_key(SHA256), DATA[:100])

    with pytest.raises(InputError, match="is damaged"):
        load_input(store, SHA256)
    assert not is_kept(store, SHA256)

    keep_input(store, SHA256, DATA)
    assert load_input(store, SHA256) == DATA
