"""The copies of input videos that an output prefix keeps: addressed by content, written before any
job that needs them.

    inputs/<first 2 hex>/<sha256>      the bytes as they were at submit, whatever they were called

So a worker needs no credentials and no path of somebody else's, a video is the same on `resume` as
at submit, and a thousand rows with one source keep it once. A copy is written whole or not at all
(`Store.put`), and checked against its name whenever it is read. Copies are shared by the batches of
a prefix and never removed by vidplat.
"""

from __future__ import annotations

import hashlib

from vidplat.errors import InputError, printable
from vidplat.storage.stores import NotFound, Store, checked_key

INPUTS = "inputs"  # the folder that holds them


def input_key(sha256: str) -> str:
    """The key of the copy of these bytes."""
    return checked_key(f"{INPUTS}/{sha256[:2]}/{sha256}")


def is_kept(store: Store, sha256: str) -> bool:
    """True when a sound copy is there; one that a power cut damaged is written again."""
    found = store.facts(input_key(sha256))
    if found is None:
        return False
    return (found.sha256 or hashlib.sha256(store.get(input_key(sha256))).hexdigest()) == sha256


def keep_input(store: Store, sha256: str, data: bytes) -> None:
    """Write the copy. Raises InputError when `data` is not what was looked at before."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("changed while it was read: submit again when it is written")
    store.put(input_key(sha256), data)


def load_input(store: Store, sha256: str) -> bytes:
    """The bytes of a copy. Raises InputError when it is gone or damaged."""
    try:
        data = store.get(input_key(sha256))
    except NotFound as error:
        raise InputError(
            f"the copy of the input video is gone from {printable(store.url)}: submit the "
            "prompts again, then retry"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(
            f"the copy of the input video in {printable(store.url)} is damaged: submit the "
            "prompts again, then retry"
        )
    return data
