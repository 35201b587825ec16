"""The stages of making one video, by name: what is timed, predicted, learnt and shown.

Every room imports the names from here, so that a stage that is planned is the stage that is timed.
"""

from __future__ import annotations

SOURCE = "source"  # of an edit: its video read, decoded, brought to size and encoded to latents
ENCODE = "encode"  # the texts
DENOISE = "denoise"
DECODE = "decode"
NETWORK = "network"  # of a draft: carried to the worker that finishes it
RECONSTRUCT = "reconstruct"  # frames that a method left out are filled in
MP4 = "mp4"
STORE = "store"  # of a finished video, committed

UNTIL_DRAFT = (SOURCE, ENCODE, DENOISE, DECODE)  # of the worker that has the model
AFTER_DRAFT = (NETWORK, RECONSTRUCT, MP4, STORE)  # of the worker that finishes, often the same
BESIDE = (MP4, STORE)  # done by a second thread of the worker, while it makes the next video
STAGES = (*UNTIL_DRAFT, *AFTER_DRAFT)  # of one video, in this order

LOAD = "load"  # once per worker and model: weights from disk to device
STARTUP = "startup"  # once per worker: process, imports, cluster
