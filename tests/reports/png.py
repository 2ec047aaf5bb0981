"""Pixels of a PNG with eight-bit colours, decoded with zlib and numpy alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

CHANNELS = {0: 1, 2: 3, 6: 4}


def pixels(path: Path) -> np.ndarray:
    """uint8, shape (height, width, channels). Raises ValueError for a kind of PNG that browsers do not write."""
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path} is no PNG")
    at, packed, header = 8, b"", b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + size]
        header = chunk if kind == b"IHDR" else header
        packed += chunk if kind == b"IDAT" else b""
        at += 12 + size
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or interlaced or colour not in CHANNELS:
        raise ValueError(f"{path}: depth {depth}, colour type {colour}, interlaced {interlaced} is not read")
    channels = CHANNELS[colour]
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    image = np.zeros((height, width * channels), np.uint8)
    above = np.zeros(width * channels, np.uint8)
    for y, line in enumerate(lines):
        above = image[y] = _unfiltered(int(line[0]), line[1:], above, channels)
    return image.reshape(height, width, channels)


def _unfiltered(kind: int, line: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """A line of pixels from what the file holds: differences from the left, from above, or from both."""
    if kind == 0:
        return line
    if kind == 2:
        return line + above
    if kind == 1:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).ravel()
    out = bytearray(len(line))
    for x, value in enumerate(line.tolist()):
        left, up = (out[x - step] if x >= step else 0), int(above[x])
        corner = int(above[x - step]) if x >= step else 0
        out[x] = (value + ((left + up) // 2 if kind == 3 else _paeth(left, up, corner))) & 255
    return np.frombuffer(bytes(out), np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
