"""The release's box arithmetic against its recorded run, and what this package does instead."""

import cv2
import numpy as np
import parity
import pytest

from ctjax.faces import reference
from ctjax.faces.crop import crop
from ctjax.types import Box


@pytest.fixture(scope="module")
def record():
    return parity.record("crop")


def test_detector_picture_and_face_crop(record):
    given = zip(record.inputs["face_hw"], record.inputs["face_box"], record.inputs["face_increase"], strict=True)
    crops, sizes = [], []
    for frame_hw, box, increase in given:
        crops.append(reference.face_crop(tuple(frame_hw.tolist()), box, float(increase)))
        sizes.append(reference.detector_size(tuple(frame_hw.tolist())))
    np.testing.assert_array_equal(crops, record.outputs["face_crop"])
    np.testing.assert_array_equal(sizes, record.outputs["detector_hw"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mouth_crop(record, dtype):
    given = zip(record.inputs["lm"], record.inputs["mouth_hw"], record.inputs["mouth_pic_size"], strict=True)
    boxes, usable = zip(
        *(reference.mouth_crop(points.astype(dtype), tuple(hw.tolist()), int(size)) for points, hw, size in given),
        strict=True,
    )
    name = np.dtype(dtype).name
    np.testing.assert_array_equal(boxes, record.outputs[f"mouth_box_{name}"])
    np.testing.assert_array_equal(np.where(usable, 0, -1), record.outputs[f"mouth_msg_{name}"])


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_resizing_of_crops(record, size, interpolation):
    patch = record.inputs["patch_bgr_u8"][..., ::-1]
    flag = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}[interpolation]
    got = crop(patch, Box(0, 0, patch.shape[1], patch.shape[0]), size, flag)
    name = f"resize_{interpolation}_{size}"
    np.testing.assert_array_equal(record.stored_part(name, got), record.outputs[name])


def test_enlarging_is_the_releases_own(record):
    patch = record.inputs["patch_bgr_u8"][..., ::-1]
    got = crop(patch, Box(0, 0, patch.shape[1], patch.shape[0]), 256)
    np.testing.assert_array_equal(record.stored_part("resize_cubic_256", got), record.outputs["resize_cubic_256"])
