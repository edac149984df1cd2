"""Any kind of picture comes out as the same upright RGB."""

import os
import pathlib

import cv2
import numpy as np
import pytest

from ctjax.media.container import MediaError
from ctjax.media.image import NEUTRAL_GREY, is_picture, read_image, write_image
from ctjax.media.orientation import EXIF_TURNS, turned

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
BGR = RGB[..., ::-1]
Image = pytest.importorskip("PIL.Image")  # the test suite's scikit-image brings Pillow, an independent writer


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_rgb_is_read_as_it_was_written(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", RGB)
    difference = np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - RGB)
    assert difference.max() <= (60 if suffix == ".webp" else 0)


def test_gray(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RGB[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(RGB[..., :1], 3, axis=2))


def test_one_bit(tmp_path):
    Image.fromarray(RGB[..., 0] > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], 255 * (RGB[..., 0] > 127))


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.fromarray(RGB).quantize(8)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))
    picture.save(tmp_path / "b.png", transparency=3)
    hidden = np.asarray(picture) == 3
    image = read_image(tmp_path / "b.png")
    assert (image[hidden] == NEUTRAL_GREY).all()
    np.testing.assert_array_equal(image[~hidden], np.asarray(picture.convert("RGB"))[~hidden])


def test_transparent_parts_show_the_background(tmp_path):
    alpha = np.zeros((6, 10, 1), np.uint8)
    alpha[:, 5:] = 255
    alpha[:, 4] = 128
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([BGR, alpha], axis=2))
    image = read_image(tmp_path / "a.png", background=(10, 20, 30))
    np.testing.assert_array_equal(image[:, 5:], RGB[:, 5:])
    assert (image[:, :4] == (10, 20, 30)).all()
    half = RGB[:, 4] * (128 / 255) + np.float64((10, 20, 30)) * (127 / 255)
    assert np.abs(image[:, 4] - half).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits(tmp_path, channels):
    deep = np.random.default_rng(1).integers(0, 65536, (6, 10, channels), dtype=np.uint16)
    if channels == 4:
        deep[..., 3] = 65535
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    want = np.rint(deep[..., 2::-1] / 257) if channels > 1 else np.repeat(np.rint(deep / 257), 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), want)


def test_floats(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tiff"), BGR.astype(np.float32) / 255)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_exif_orientation_is_obeyed(tmp_path, orientation, mode):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.png", exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), want)
    np.testing.assert_array_equal(turned(RGB, EXIF_TURNS[orientation]), want)


def test_jpeg_in_cmyk(tmp_path):
    smooth = cv2.resize(RGB, (80, 48))
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth).mean() < 6


@pytest.mark.parametrize("content", [b"", b"not a picture at all", b"\x89PNG\r\n\x1a\n", None])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, content, capfd):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png: (the file is empty|is not a picture|no such file)") as error:
        read_image(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    """OpenCV would end the process without a word."""
    path = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(MediaError, match="its name is not UTF-8 text"):
        is_picture(path)


def test_a_truncated_picture_is_refused(tmp_path):
    write_image(tmp_path / "a.png", cv2.resize(RGB, (200, 200)))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        read_image(tmp_path / "a.png")


def test_pictures_are_told_from_videos(tmp_path):
    write_image(tmp_path / "a.png", RGB)
    Image.fromarray(RGB).save(tmp_path / "b.gif")
    (tmp_path / "c.txt").write_text("hello")
    assert is_picture(tmp_path / "a.png")
    assert not is_picture(tmp_path / "b.gif")
    assert not is_picture(tmp_path / "c.txt")
