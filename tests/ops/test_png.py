"""PNG decoding against Pillow: every filter, every layout, damaged files."""

from __future__ import annotations

import io
import struct
import zlib

from seg_plugins.ops import png
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.png import decode_png

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not load_extension().loaded, reason="needs the compiled operators")
BYTES = {0: 1, 2: 3, 3: 1}


def with_pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def as_png(pixels, **options):
    """Saved by Pillow, from an array or an image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(lines, width, height, depth=8, colour=0, interlace=0, parts=1, packed=None):
    """A file made by hand from filtered lines: anything goes as a difference."""
    packed = zlib.compress(lines) if packed is None else packed
    step = -(-len(packed) // parts)
    data = [chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    return b"".join([png._SIGNATURE, chunk(b"IHDR", header), palette, *data, chunk(b"IEND", b"")])


@pytest.mark.parametrize(("depth", "colour"), [(8, 0), (16, 0), (8, 2), (8, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 24), (7, 25), (12, 100), (40, 301)])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.2, 1.0])
def test_every_filter_and_layout(depth, colour, size, density):
    rng = np.random.default_rng(size[1])
    height, width = size
    row = width * BYTES[colour] * depth // 8
    lines = rng.integers(0, 256, (height, row + 1)).astype(np.uint8)
    # Long runs of zero differences, as in label maps, and few different values.
    lines[:, 1:] = np.where(rng.random((height, row)) < density, lines[:, 1:] % 3, 0)
    lines[:, 0] = rng.permutation(np.arange(height) % 5)
    content = raw_png(lines.tobytes(), width, height, depth, colour, parts=3)
    found, expected = decode_png(content), with_pillow(content)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_as_pillow_saves_them(dtype):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 200, (9, 14)), np.ones((31, 29))).astype(dtype)
    labels[rng.random(labels.shape) < 0.01] = np.iinfo(dtype).max
    for content in (as_png(labels), as_png(labels, optimize=True)):
        found = decode_png(content)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, labels)
        np.testing.assert_array_equal(found, with_pillow(content))


def test_a_palette_gives_indices():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    image.putpalette([255 - i for i in range(256) for _ in range(3)])
    np.testing.assert_array_equal(decode_png(as_png(image, bits=8)), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA"])
def test_other_layouts_are_left_to_pillow(mode):
    assert decode_png(as_png(Image.new(mode, (8, 8)))) is None


def test_what_is_no_plain_png_is_left_to_pillow(monkeypatch):
    lines = bytes(4 * 5)
    good = raw_png(lines, 4, 4)
    assert decode_png(good) is not None
    assert decode_png(raw_png(lines, 4, 4, interlace=1)) is None
    assert decode_png(raw_png(lines, 4, 5)) is None  # too few rows
    assert decode_png(raw_png(lines, 4, 3)) is None  # too many
    assert decode_png(raw_png(b"\5" + lines[1:], 4, 4)) is None  # unknown filter
    assert decode_png(raw_png(lines, 2**31 - 1, 2**31 - 1)) is None
    assert decode_png(raw_png(lines, 0, 4)) is None
    assert decode_png(good[:33] + chunk(b"acTL", bytes(8)) + good[33:]) is None
    assert decode_png(b"") is None
    assert decode_png(b"GIF89a" + bytes(100)) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    assert decode_png(good) is None


def test_damage_is_never_read_as_pixels():
    labels = np.kron(np.arange(6).reshape(2, 3), np.ones((5, 7))).astype(np.uint8)
    content = as_png(labels)
    for cut in range(len(content) - 4):  # the last four bytes check an empty chunk
        assert decode_png(content[:cut]) is None
    end = content.index(b"IEND") - 4
    for place in range(8, end):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            assert decode_png(bytes(damaged)) is None, place


def test_without_libdeflate(monkeypatch):
    monkeypatch.setattr(png, "deflate", None)
    test_what_is_no_plain_png_is_left_to_pillow(monkeypatch)
    lines = bytes(4 * 5)
    assert decode_png(raw_png(lines, 4, 4, packed=zlib.compress(lines)[:-5])) is None
    assert decode_png(raw_png(lines, 4, 4, packed=b"no zlib data")) is None


@pytest.mark.slow
def test_real_label_images(shared_data):
    files = sorted(shared_data.rglob("*.png"))
    decoded = 0
    for file in files:
        content = file.read_bytes()
        found = decode_png(content)
        if found is not None:
            decoded += 1
            np.testing.assert_array_equal(found, with_pillow(content), err_msg=str(file))
    assert decoded > len(files) / 2
