# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Resizing keeps the visible content of the image, in every mode that Pillow opens, and in bounded memory."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image as Pillow

from airflow_provider_faceki import api, resize
from airflow_provider_faceki.resize import _MemoryBudget, _shrink, resized

pytestmark = pytest.mark.process

MEBI = 1024 * 1024
WIDTH, HEIGHT = 512, 384


def ramp() -> Pillow.Image:
    """Return a gradient with black on the left and white on the right."""
    return Pillow.linear_gradient("L").rotate(90).resize((WIDTH, HEIGHT))


def sixteen_bit_ramp() -> Pillow.Image:
    return ramp().convert("I").point(lambda value: value * 257).convert("I;16")


def dithered() -> Pillow.Image:
    return ramp().convert("1")


def palette(transparency: Any = None) -> Pillow.Image:
    made = ramp().convert("RGB").convert("P", palette=Pillow.Palette.ADAPTIVE, colors=256)
    if transparency is not None:
        made.info["transparency"] = transparency
    return made


def transparent_image(mode: str) -> Pillow.Image:
    """Return a black image that is more transparent towards the right; on a white background, it is the gradient."""
    alpha = ramp().point(lambda value: 255 - value)
    black = Pillow.new("L" if mode == "LA" else "RGB", alpha.size)
    black.putalpha(alpha)
    return black


def encode(image: Pillow.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def shown(image: Pillow.Image) -> list[float]:
    """Return the mean grey values of eight columns, from left to right."""
    small = image.convert("L").resize((8, 1), Pillow.Resampling.BOX)
    return [float(small.getpixel((x, 0))) for x in range(8)]  # type: ignore[arg-type]


RAMP = [16.0 + 32 * column for column in range(8)]


def check_ramp(image: Pillow.Image, tolerance: float = 6) -> None:
    assert image.mode == "RGB"
    found = shown(image)
    assert all(abs(a - b) <= tolerance for a, b in zip(found, RAMP, strict=True)), found


def smaller(content: bytes, longest: int = 100) -> Pillow.Image:
    made = resized("selfie", api.Image.of_bytes("selfie", content), longest, MEBI)
    with made.open() as file:
        return Pillow.open(io.BytesIO(file.read()))


@pytest.mark.parametrize(
    ("make", "kind", "mode"),
    [
        pytest.param(dithered, "PNG", "1", id="1"),
        pytest.param(ramp, "PNG", "L", id="L"),
        pytest.param(ramp, "JPEG", "L", id="L as JPEG"),
        pytest.param(lambda: ramp().convert("LA"), "PNG", "LA", id="LA"),
        pytest.param(lambda: transparent_image("LA"), "PNG", "LA", id="LA, transparent"),
        pytest.param(palette, "PNG", "P", id="P"),
        pytest.param(lambda: ramp().convert("RGB"), "PNG", "RGB", id="RGB"),
        pytest.param(lambda: ramp().convert("RGB"), "JPEG", "RGB", id="RGB as JPEG"),
        pytest.param(lambda: ramp().convert("RGB"), "WEBP", "RGB", id="RGB as WEBP"),
        pytest.param(lambda: ramp().convert("RGBA"), "PNG", "RGBA", id="RGBA"),
        pytest.param(lambda: transparent_image("RGBA"), "PNG", "RGBA", id="RGBA, transparent"),
        pytest.param(lambda: transparent_image("RGBA"), "WEBP", "RGBA", id="RGBA as WEBP"),
        pytest.param(lambda: ramp().convert("RGB").convert("CMYK"), "JPEG", "CMYK", id="CMYK"),
        pytest.param(lambda: ramp().convert("YCbCr"), "JPEG", "RGB", id="YCbCr"),
        pytest.param(sixteen_bit_ramp, "PNG", "I;16", id="I;16"),
    ],
)
@pytest.mark.parametrize("longest", [100, 4000], ids=["made smaller", "small enough already"])
def test_resizing_keeps_the_content_in_every_mode(
    make: Callable[[], Pillow.Image], kind: str, mode: str, longest: int
) -> None:
    content = encode(make(), kind)
    assert Pillow.open(io.BytesIO(content)).mode == mode
    check_ramp(smaller(content, longest))


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Pillow.new("P", (200, 200), 1)
    image.putpalette([255, 0, 0, 0, 0, 0])
    for content in (encode(image, "PNG", transparency=1), encode(image, "PNG", transparency=b"\xff\x00")):
        assert shown(smaller(content)) == [255.0] * 8
    assert shown(smaller(encode(image, "PNG"))) == [0.0] * 8
    grey = Pillow.new("L", (200, 200), 7)
    assert shown(smaller(encode(grey, "PNG", transparency=7))) == [255.0] * 8


def black_png(width: int, height: int) -> bytes:
    return encode(Pillow.new("1", (width, height)), "PNG")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(
            lambda: black_png(13_000, 13_000),
            r"has 13000 x 13000 pixels, which would take 8\d\d MiB",
            id="1",
        ),
        pytest.param(
            lambda: black_png(60_000, 5_000),
            "has 60000 x 5000 pixels, more than 250 million",
            id="more pixels",
        ),
        pytest.param(
            lambda: b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + b"\xff\x3f\x00\xff\x3f\x00",
            "has 16384 x 16384 pixels, more than 250 million",
            id="WEBP that only says so",
        ),
    ],
)
def test_too_many_pixels_are_refused_before_they_are_read(make: Callable[[], bytes], expected: str) -> None:
    with pytest.raises(api.ValidationError, match=expected) as caught:
        smaller(make())
    assert caught.value.message.startswith("selfie cannot be made smaller: it ")


def test_a_jpeg_of_200_million_pixels() -> None:
    content = encode(Pillow.new("L", (16_320, 12_240), 128), "JPEG", quality=30)
    made = smaller(content, 1920)
    assert made.size == (1920, 1440)
    assert shown(made) == [128.0] * 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_that_a_camera_notes(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    content = encode(ramp().convert("RGB"), "JPEG", exif=exif)
    sideways = orientation >= 5
    made = smaller(content, 128)
    assert made.size == ((96, 128) if sideways else (128, 96))
    upright = made.transpose(
        Pillow.Transpose.ROTATE_90 if orientation in (6, 7) else Pillow.Transpose.ROTATE_270
    )
    found = shown(upright if sideways else made)
    assert found == sorted(found) or found == sorted(found, reverse=True)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_resizing_averages_dithered_images(mode: str) -> None:
    """The reduced image is grey, because each of its pixels is the average of black and white pixels.

    Pillow itself leaves pixels out in these modes. This would break up printed letters in a scan.
    """
    dots = Pillow.new("1", (1024, 1024))
    dots.putdata([255 * ((x + x // 1024) % 2) for x in range(1024 * 1024)])
    assert set(_shrink(dots.convert(mode), 128).convert("L").tobytes()) <= set(range(100, 156))


def test_threads_share_the_memory() -> None:
    budget, running, most = _MemoryBudget(100), 0, 0
    lock, pair, crowd = threading.Lock(), threading.Barrier(2), threading.Event()

    def work() -> None:
        nonlocal running, most
        with budget.reserve(40):
            with lock:
                running += 1
                most = max(most, running)
                if running > 2:
                    crowd.set()
            # The memory budget is large enough for two threads at once, but not for three.
            pair.wait(300)
            # If the budget did not make a third thread wait, this thread would set the event now.
            crowd.wait(0.1)
            with lock:
                running -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert (most, running, budget._free) == (2, 0, 100)


def test_an_image_that_breaks_gives_its_memory_back() -> None:
    content = encode(ramp().convert("RGB"), "PNG")
    with pytest.raises(api.ValidationError, match="Pillow cannot read it"):
        smaller(content[: len(content) // 2])
    assert resize._budget._free == resize.MAX_DECODED_BYTES


MEMORY = """
import sys, threading
from airflow_provider_faceki import api
from airflow_provider_faceki.resize import resized
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
def peak():
    # Not getrusage: what it tells is no less than the parent's.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
image, before = api.Image.of_bytes("selfie", sys.stdin.buffer.read()), peak()
threads = [threading.Thread(target=resized, args=("selfie", image, 1920, 10**7)) for _ in range(int(sys.argv[1]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("make", "threads", "most"),
    [
        pytest.param(lambda: encode(ramp().resize((8160, 6120)).convert("RGB"), "JPEG"), 1, 110, id="50 MP"),
        pytest.param(
            lambda: encode(ramp().resize((8160, 6120)).convert("RGB"), "JPEG"), 4, 320, id="four of 50 MP"
        ),
        pytest.param(
            lambda: encode(ramp().resize((4000, 3000)).convert("RGBA"), "PNG"), 4, 320, id="four PNGs"
        ),
    ],
)
def test_memory(make: Callable[[], bytes], threads: int, most: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(threads)],
        input=make(),
        capture_output=True,
        timeout=600,
        check=True,
    )
    assert int(done.stdout) < most
