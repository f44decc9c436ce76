"""How token vectors lie in a shard: a 64-byte header, then one block a page.

A block is a 64-byte header, the codes, the scales, the pooled vector, and zeros up to a multiple of 64. Headers and
payloads carry a CRC-32; everything is little-endian. Pure functions of bytes. Not here: files (index.store).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.codec import CODECS, SCALED, encode, width
from index.errors import DamageError, FormatError
from index.ragged import Codes

ALIGN = 64
FORMAT = 1
_SHARD = struct.Struct("<8sII8sQ16s12xI")  # magic, format, dim, codec, shard, index, CRC of what is before
_BLOCK = struct.Struct("<4sIQIIQI24xI")  # magic, format, page, tokens, pooled dim, payload bytes, payload CRC, CRC
_MAGIC, _PAGE = b"OCTAVO\r\n", b"PAGE"


class Extent(NamedTuple):
    """Where a page's block lies: shard, offset of the block in bytes, tokens, CRC-32 of its payload."""

    shard: int
    offset: int
    tokens: int
    crc: int


@dataclass(frozen=True, slots=True)
class Extents:
    """Those of n pages: shards, offsets and tokens (n,) int64, crcs (n,) uint32."""

    shards: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray
    crcs: np.ndarray

    @classmethod
    def of(cls, extents: Sequence[tuple[int, int, int, int]]) -> Extents:
        """From the rows of a catalog."""
        table = np.array(extents, np.int64).reshape(-1, 4)
        shards, offsets, tokens = (np.ascontiguousarray(column) for column in table[:, :3].T)
        return cls(shards, offsets, tokens, table[:, 3].astype(np.uint32))

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> Extent:
        return Extent(int(self.shards[row]), int(self.offsets[row]), int(self.tokens[row]), int(self.crcs[row]))


class Block(NamedTuple):
    """A page ready to be written: tokens, CRC-32 of the payload, and all bytes of the block."""

    tokens: int
    crc: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """What every block of an index looks like. index: 16 bytes that name it; single_dim: D of the pooled vector;
    centre: (dim,) float32 of a codec that takes it away, None before the first tokens and for the other codecs."""

    index: bytes
    dim: int
    codec: str
    single_dim: int
    centre: np.ndarray | None = field(default=None, compare=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of a token's codes."""
        return width(self.codec, self.dim) * CODECS[self.codec].itemsize

    @property
    def scale_bytes(self) -> int:
        """Bytes of a token's scale, 0 for a codec without."""
        return 2 if self.codec in SCALED else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's codes and scale."""
        return self.row_bytes + self.scale_bytes

    def payload_bytes(self, tokens: int) -> int:
        """Bytes of codes, scales and pooled vector of a page."""
        return tokens * self.token_bytes + 2 * self.single_dim

    def block_bytes(self, tokens: int) -> int:
        """Bytes of a whole block, headers and padding included."""
        return -(-(ALIGN + self.payload_bytes(tokens)) // ALIGN) * ALIGN

    def block(self, page: int, vectors: np.ndarray, pooled: np.ndarray) -> Block:
        """A page's (t, d) vectors and (D,) pooled vector -> its block. Raises ValueError for what is not finite."""
        codes, scales = encode(vectors, self.codec, self.centre)
        with np.errstate(over="ignore"):
            half = np.asarray(pooled, np.float32).astype("<f2")
        if half.shape != (self.single_dim,) or not np.isfinite(half).all():
            raise ValueError(f"pooled vector must be ({self.single_dim},), finite and within half precision")
        payload = codes.tobytes() + (b"" if scales is None else scales.tobytes()) + half.tobytes()
        crc = zlib.crc32(payload)
        header = _BLOCK.pack(_PAGE, FORMAT, page, len(vectors), self.single_dim, len(payload), crc, 0)
        block = _sealed(header) + payload
        return Block(len(vectors), crc, block + bytes(-len(block) % ALIGN))

    def parts(self, block: memoryview | bytes, tokens: int) -> tuple[Codes, np.ndarray]:
        """The codes of a block, sound as it is, and its pooled vector (D,) float16: views, not copies."""
        columns = width(self.codec, self.dim)
        values = np.frombuffer(block, CODECS[self.codec], tokens * columns, ALIGN).reshape(tokens, columns)
        start = ALIGN + tokens * self.row_bytes
        scales = np.frombuffer(block, "<f2", tokens, start) if self.scale_bytes else None
        pooled = np.frombuffer(block, "<f2", self.single_dim, start + tokens * self.scale_bytes)
        return Codes(values, np.array([0, tokens]), self.codec, scales, self.centre), pooled

    def check_block(self, block: memoryview, page: int, extent: Extent) -> tuple[int, str] | None:
        """Where in a block something is not as it was written, and what; None where all is well."""
        payload_bytes = self.payload_bytes(extent.tokens)
        expected = _BLOCK.pack(_PAGE, FORMAT, page, extent.tokens, self.single_dim, payload_bytes, extent.crc, 0)
        if block[:ALIGN] != _sealed(expected):
            return 0, "the block header at offset {} is not what was written"
        if zlib.crc32(block[ALIGN : ALIGN + payload_bytes]) != extent.crc:
            return ALIGN, "the vectors at offset {} are not what was written"
        if any(block[ALIGN + payload_bytes :]):
            return ALIGN + payload_bytes, "the padding at offset {} is not zero"
        return None

    def shard_header(self, shard: int) -> bytes:
        """The first 64 bytes of a shard."""
        return _sealed(_SHARD.pack(_MAGIC, FORMAT, self.dim, self.codec.encode(), shard, self.index, 0))

    def check_shard(self, header: bytes, shard: int, path: Path) -> None:
        """Raise DamageError, or FormatError, unless a shard's header is what this index writes."""
        magic, version, dim, codec, number, index, crc = _SHARD.unpack(header)
        if crc != zlib.crc32(header[:-4]) or magic != _MAGIC:
            raise DamageError(f"{path}: the header at offset 0 is damaged; restore the file, or run octavo check")
        if version > FORMAT:
            raise FormatError(f"{path}: shard format {version}, this Octavo reads up to {FORMAT}; install a newer one")
        if (dim, codec.rstrip(b"\0"), number, index) != (self.dim, self.codec.encode(), shard, self.index):
            raise DamageError(f"{path}: belongs to another index, or another place in this one; restore the right file")


def _sealed(header: bytes) -> bytes:
    return header[:-4] + struct.pack("<I", zlib.crc32(header[:-4]))


def walk_block(data: memoryview, offset: int) -> int:
    """Bytes of the block at an offset, going by its own header; 0 where it is not whole."""
    header = bytes(data[offset : offset + ALIGN])
    if len(header) < ALIGN:
        return 0
    magic, _, _, _, _, payload_bytes, payload_crc, crc = _BLOCK.unpack(header)
    if magic != _PAGE or crc != zlib.crc32(header[:-4]):
        return 0
    end = offset + ALIGN + payload_bytes
    padded = -(-end // ALIGN) * ALIGN
    whole = padded <= len(data) and zlib.crc32(data[offset + ALIGN : end]) == payload_crc and not any(data[end:padded])
    return padded - offset if whole else 0
