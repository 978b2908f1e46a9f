# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Images that are reduced: their visible content, and their metadata."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFile, PngImagePlugin

from airflow_provider_faceki import api
from airflow_provider_faceki.operators.images import FacekiAnalyzeFaceOperator, FacekiCheckImageOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.resize import _scan_count, resized
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import execute
from tests.billing.conftest import Connect, Verify
from tests.billing.image_files import HEIC, image_bytes, write

pytestmark = pytest.mark.process

MEBI = 1024 * 1024
SIDEWAYS = 6  # Exif orientation of a camera that was rotated by 90 degrees
TELLTALES = (b"TELLTALE", b"Exif")


def portrait(width: int, height: int) -> Pillow.Image:
    """Return a white image whose upper left corner is red."""
    made = Pillow.new("RGB", (width, height), "white")
    ImageDraw.Draw(made).rectangle((0, 0, width // 4, height // 4), fill="red")
    return made


def encoded(made: Pillow.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, kind, **more)
    return buffer.getvalue()


def smaller(content: bytes, longest: int = 400) -> tuple[bytes, Pillow.Image]:
    made = resized("selfie", api.Image.of_bytes("selfie", content), longest, MEBI)
    assert (made.media_type, made.ending) == ("image/jpeg", "jpg")
    with made.open() as file:
        said = file.read()
    assert len(said) == made.size
    return said, Pillow.open(io.BytesIO(said))


def talkative() -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = SIDEWAYS
    exif[0x010E] = "TELLTALE description"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 0.0)
    return encoded(
        portrait(800, 600),
        "JPEG",
        exif=exif,
        comment=b"TELLTALE comment",
        xmp=b"<x>TELLTALE</x>",
        icc_profile=b"TELLTALE" + bytes(200),
        dpi=(300, 300),
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((1600, 1200), (400, 300), id="landscape"),
        pytest.param((1200, 1600), (300, 400), id="portrait"),
        pytest.param((400, 400), (400, 400), id="just as large"),
        pytest.param((100, 50), (100, 50), id="small ones are not enlarged"),
        pytest.param((4000, 2), (400, 1), id="a thread"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_longer_side_is_resized_to_the_limit(
    size: tuple[int, int], expected: tuple[int, int], kind: str
) -> None:
    _, made = smaller(encoded(portrait(*size), kind))
    assert (made.size, made.format, made.mode) == (expected, "JPEG", "RGB")


def test_the_exif_orientation_is_applied() -> None:
    _, made = smaller(talkative())
    assert made.size == (300, 400)
    # The camera was rotated, so the stored upper left corner must be the upper right corner after the resize.
    right, left = made.getpixel((290, 10)), made.getpixel((10, 10))
    assert isinstance(right, tuple)
    assert isinstance(left, tuple)
    assert right[1] < 100 < left[1]


@pytest.mark.parametrize("longest", [400, 4000], ids=["made smaller", "small enough already"])
def test_resizing_removes_the_metadata(longest: int) -> None:
    assert all(word in talkative() for word in TELLTALES)
    said, made = smaller(talkative(), longest)
    assert not any(word in said for word in TELLTALES)
    assert not made.getexif()


def test_resizing_removes_the_metadata_of_a_png() -> None:
    information = PngImagePlugin.PngInfo()
    information.add_text("Author", "TELLTALE")
    content = encoded(portrait(100, 100), "PNG", pnginfo=information)
    assert b"TELLTALE" in content
    assert b"TELLTALE" not in smaller(content)[0]


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "CMYK", "I;16"])
def test_any_kind_of_colour(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert smaller(encoded(Pillow.new(mode, (500, 500)), kind))[1].mode == "RGB"


def outcome(content: bytes) -> str:
    try:
        smaller(content)
    except api.ValidationError as error:
        return str(error)
    return "read"


START, FRAME, END = "ffd8", "ffc0000b080010001001011100", "ffd9"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(START + FRAME + END, id="no scan"),
        pytest.param(START + FRAME + "fff00004" + "ffd9" + END, id="an unknown segment, and no scan"),
        pytest.param(START + FRAME + "fff00000", id="a segment that is shorter than its own length"),
        pytest.param(START + FRAME + "fff0" + "0001" + END, id="a segment that goes back by a byte"),
        pytest.param(START + FRAME + "fff0ffff" + END, id="a segment that goes beyond the end"),
        pytest.param(START + FRAME + "ffff" * 9, id="only padding"),
    ],
)
def test_a_jpeg_without_a_scan_ends(content: str) -> None:
    assert (
        outcome_with_timeout(bytes.fromhex(content)) == "selfie cannot be made smaller: Pillow cannot read it"
    )


def test_a_scan_behind_bytes_that_decoders_skip_is_found() -> None:
    frame = "ffc0001108001000100301110002110103110100"
    one_of_three, three_of_three = "ffda0008010100003f00", "ffda000c03010002110311003f00"
    with tempfile.TemporaryFile() as file:
        file.write(bytes.fromhex(START + frame + "ff00000c" + one_of_three + three_of_three + END))
        file.flush()
        assert _scan_count("selfie", file) == 2


@pytest.mark.parametrize("repeated", ["scan", "segment"])
def test_a_small_jpeg_that_would_take_hours_is_refused(repeated: str) -> None:
    content = encoded(Pillow.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    scan, end = content.rindex(b"\xff\xda"), len(content) - 2
    if repeated == "scan":
        content = content[:end] + content[scan:end] * 100_000 + content[end:]
    else:
        content = content[:2] + bytes.fromhex("ffe100094578696600002a") * 200_000 + content[2:]
    told = outcome_with_timeout(content)
    assert told.startswith("selfie cannot be made smaller: it has more than 100 scans or 1000 segments")


def test_a_jpeg_of_padding_is_refused() -> None:
    content = encoded(portrait(300, 200), "JPEG")
    assert outcome(content[:2] + b"\xff" * 4000 + content[2:]) == "read"
    broken = content[:2] + b"\xff" * 10_000_000 + content[2:]
    assert outcome_with_timeout(broken) == "selfie cannot be made smaller: Pillow cannot read it"


def outcome_with_timeout(content: bytes) -> str:
    """Return the outcome for an image, or fail after 60 seconds.

    The image is read in a daemon thread, so that an endless loop fails only this test.
    """
    said: Queue[str] = Queue()
    Thread(target=lambda: said.put(outcome(content)), daemon=True).start()
    return said.get(timeout=60)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_broken_image_is_read_or_rejected_with_a_message(kind: str) -> None:
    content = encoded(portrait(300, 200), kind) if kind != "JPEG" else talkative()
    rng = random.Random(7)
    told = set()
    for _ in range(250):
        broken = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(16, len(broken))] = rng.randrange(256)
        del broken[rng.choice([len(broken), rng.randrange(20, len(broken))]) :]
        told.add(outcome(bytes(broken)))
    assert told == {"read", "selfie cannot be made smaller: Pillow cannot read it"}


@pytest.mark.parametrize(
    "content",
    [pytest.param(image_bytes(500), id="noise"), pytest.param(HEIC + bytes(500), id="HEIC")],
)
def test_what_pillow_cannot_read(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(AirflowFailException, match="selfie cannot be made smaller: Pillow cannot read it"):
        verify("accepted-1", selfie=write(tmp_path, "odd.jpg", content), resize_to=100).go()
    assert sandbox.counters.requests == {}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_refused_although_other_code_lets_pillow_read_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, threads: int
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    content = encoded(Pillow.effect_noise((600, 400), 90).convert("RGB"), kind)
    cut = api.Image.of_bytes("selfie", content[: len(content) // 2])

    def error(_: int) -> str:
        with pytest.raises(api.ValidationError) as caught:
            resized("selfie", cut, 200, MEBI)
        return caught.value.message

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(error, range(threads))) == {
            "selfie cannot be made smaller: Pillow cannot read it"
        }
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_storage_that_fails_is_no_broken_image() -> None:
    content, opened = talkative(), [io.BytesIO(talkative())]

    def opener() -> io.BytesIO:
        if not opened:
            raise OSError("the network share is gone")
        return opened.pop()

    made = api.Image.checked("selfie", opener, len(content), MEBI)
    with pytest.raises(OSError, match="the network share is gone"):
        resized("selfie", made, 100, MEBI)


def test_larger_than_the_limit_but_not_afterwards(
    sandbox: FacekiSandbox, connect: Connect, verify: Verify, tmp_path: Path
) -> None:
    noise = encoded(Pillow.effect_noise((800, 800), 60).convert("RGB"), "JPEG", quality=95)
    limit = len(noise) // 2
    connect(sandbox, max_image_bytes=limit)
    selfie = write(tmp_path, "large.jpg", noise)
    card = {"front": selfie, "back": selfie}
    with pytest.raises(AirflowFailException, match=f"more than max_image_bytes={limit}"):
        verify("accepted-1", selfie=selfie, documents=[card]).go()
    assert verify("accepted-1", selfie=selfie, documents=[card], resize_to=200).go()["decision"] == "ACCEPTED"
    with pytest.raises(AirflowFailException, match=f"selfie has .* more than max_image_bytes={limit}"):
        verify("accepted-2", selfie=selfie, documents=[card], resize_to=800).go()
    connect(sandbox, max_image_bytes=len(noise) // 11)
    with pytest.raises(AirflowFailException, match="selfie has .* may have 10 times max_image_bytes="):
        verify("accepted-2", selfie=selfie, documents=[card], resize_to=200).go()


@pytest.mark.parametrize("resize_to", [0, -1, 1.5, "1920", True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: FacekiCheckImageOperator(task_id="t", image="/a", **more),
        lambda **more: FacekiAnalyzeFaceOperator(task_id="t", selfie="/a", **more),
        lambda **more: FacekiKycVerificationOperator(task_id="t", selfie="/a", documents=["/a"], **more),
    ],
    ids=["check", "analyze", "verify"],
)
def test_pixels_are_whole_numbers(make: Any, resize_to: object) -> None:
    with pytest.raises(ValueError, match="resize_to must be a whole number of pixels"):
        make(resize_to=resize_to)


def test_other_operators_make_smaller_too(sandbox: FacekiSandbox, tmp_path: Path) -> None:
    uri = write(tmp_path, "large.png", encoded(portrait(900, 900), "PNG"))
    done, _ = execute(FacekiCheckImageOperator(task_id="check", image=uri, resize_to=100))
    assert done["objects"] == ["face"]


WITHOUT_PILLOW = """
import io, sys
sys.modules["PIL"] = None
from airflow_provider_faceki import api
from airflow_provider_faceki.resize import _scan_count, resized
image = api.Image.of_bytes("selfie", b"\\xff\\xd8\\xff" + bytes(100))
try:
    resized("selfie", image, 100, 1000)
except api.ConfigurationError as error:
    print(error)
"""


def test_without_pillow_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == "resize_to needs Pillow: install the extra 'images'", done.stderr
