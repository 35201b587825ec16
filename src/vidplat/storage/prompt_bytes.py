"""The bytes of a prompt file, made plain: unpacked, and in UTF-8.

    gzip bz2 xz zstd lz4      unpacked into a temporary file, once and within bounds
    UTF-16, UTF-32 with mark  written anew as UTF-8

Anything else stays as it is. What is damaged, packed twice or unpacks without end is an InputError.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from vidplat.errors import InputError

HEAD_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20
# rows of ten columns pack 26 times (gzip) to 113 (xz); of the same 10 kB each, 314 times (gzip)
_FREE_BYTES, _MOST_TIMES = 32 << 20, 400
_MOST_BYTES = 16 << 30


def _of_arrow(name: str, file: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), name)


#: How packed files begin -> the name of the packing, and what unpacks it.
_PACKED: dict[bytes, tuple[str, Callable[[BinaryIO], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bz2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"\x28\xb5\x2f\xfd": ("zstd", partial(_of_arrow, "zstd")),
    b"\x04\x22\x4d\x18": ("lz4", partial(_of_arrow, "lz4")),
}
#: Byte order marks; that of UTF-32 begins with one of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
#: Endings of names that say how a file is packed.
PACKED_SUFFIXES = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd", ".lz4")
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, pa.ArrowException)


def head_of(file: BinaryIO) -> bytes:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


def plain(file: BinaryIO, new_file: Callable[[], BinaryIO], where: str) -> BinaryIO:
    """`file` itself, or one that `new_file` makes, with its bytes unpacked and in UTF-8."""
    if packing := _packing_of(head_of(file)):
        file = _unpacked(file, new_file(), *packing, where)
        if _packing_of(head_of(file)):
            raise InputError(f"{where} is packed more than once: unpack it first")
    head = head_of(file)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    return file if encoding is None else _in_utf8(file, new_file(), encoding, where)


def _packing_of(head: bytes) -> tuple[str, Callable[[BinaryIO], Any]] | None:
    found = next((known for mark, known in _PACKED.items() if head.startswith(mark)), None)
    # a prompt may begin with BZh; what is packed goes on with a level and a magic number
    return None if head.startswith(b"BZh") and head[4:6] not in (b"1A", b"\x17r") else found


def _unpacked(
    file: BinaryIO, into: BinaryIO, name: str, opened: Callable[[BinaryIO], Any], where: str
) -> BinaryIO:
    packed_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    most = min(_MOST_BYTES, max(_FREE_BYTES, _MOST_TIMES * packed_bytes))
    part = memoryview(bytearray(_CHUNK_BYTES))  # pyarrow forgets to free what `read` fails to fill
    try:
        with opened(file) as stream:
            while size := stream.readinto(part):
                into.write(part[:size])
                if into.tell() > most:
                    raise InputError(
                        f"{where} unpacks to more than {most >> 20:,} MiB, from "
                        f"{packed_bytes:,} bytes: unpack it yourself if it is meant, and give that "
                        "file"
                    )
    except MemoryError as error:
        raise InputError(f"{where} needs too much memory to unpack: unpack it first") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # a full disk says nothing about the file
            raise
        raise InputError(f"{where} is not a whole {name} file (truncated or damaged)") from error
    into.seek(0)
    return into


def _in_utf8(file: BinaryIO, into: BinaryIO, encoding: str, where: str) -> BinaryIO:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while part := file.read(_CHUNK_BYTES):
            into.write(decoder.decode(part).encode())
        into.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise InputError(
            f"{where} is not whole {encoding} text (truncated or damaged): save it as UTF-8"
        ) from error
    into.seek(0)
    return into
