"""TensorBoard's event files: records of a length, a masked CRC-32C of it, the data, and a masked CRC-32C of that.

The data is a protocol buffer of tensorflow/core/util/event.proto; of its fields we write the time, the step, and the
tag and value of a scalar.
"""

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

NAME = "events.out.tfevents.0.qualm"  # TensorBoard looks for "tfevents"
POLYNOMIAL = 0x82F63B78  # of Castagnoli's CRC, its bits from right to left
MASK = 0xA282EAD8
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # wire types


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value


TABLE = [_row(value) for value in range(256)]


def crc(data: bytes) -> int:
    """CRC-32C, masked as TFRecord files have it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + MASK) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", crc(size)) + data + struct.pack("<I", crc(data))


def records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each whole record of a file, and the data in it; what was cut off or damaged ends it."""
    at = 0
    while at + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        whole = content[at : at + 16 + size]
        data = whole[12:-4]
        if len(whole) < 16 + size or whole != record(data):
            return
        yield whole, data
        at += 16 + size


def head() -> bytes:
    """The record that opens a file."""
    return record(_number(1, time.time()) + _bytes(3, b"brain.Event:2"))


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """A record with values by tag."""
    summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + _single(2, value)) for tag, value in values.items())
    return record(_number(1, time.time()) + _varint(2 << 3 | VARINT) + _varint(step) + _bytes(5, summary))


def step_of(data: bytes) -> int:
    """The step of a record that we wrote; 0 for the one that opens a file."""
    if data[9:10] != bytes([2 << 3 | VARINT]):
        return 0
    step, shift = 0, 0
    for byte in data[10:]:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return step


def until(path: Path, step: int) -> bytes:
    """What a file holds up to a step; at least its head."""
    found = [whole for whole, data in records(path.read_bytes()) if step_of(data) <= step] if path.exists() else []
    return b"".join(found) or head()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: float) -> bytes:
    return bytes([field << 3 | DOUBLE]) + struct.pack("<d", value)


def _single(field: int, value: float) -> bytes:
    return bytes([field << 3 | FLOAT]) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | BYTES]) + _varint(len(value)) + value
