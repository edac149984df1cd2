"""Numbers over a clip: interpolation, files, and errors that name the row."""

import numpy as np
import pytest

from ctjax.motion.curve import Curve
from ctjax.types import UserError


def test_curve_interpolates_and_holds_its_ends():
    curve = Curve([(1.0, 0.0), (2.0, 1.0), (4.0, 0.5)])
    got = curve.at(np.array([0.0, 1.0, 1.25, 2.0, 3.0, 4.0, 9.0]))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [0.0, 0.0, 0.25, 1.0, 0.75, 0.5, 0.5])
    np.testing.assert_allclose(curve.frames(25, 3, 25.0), [0.0, 0.04, 0.08], atol=1e-7)
    np.testing.assert_allclose(Curve.constant(0.7).frames(0, 2, 30.0), 0.7, atol=1e-7)


def test_curve_from_a_file(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("\ufeffseconds,alpha\n# closed, then open\n0, 0\n\n2,1\n", encoding="utf-8")
    np.testing.assert_allclose(Curve.read(path).at(np.array([1.0])), 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("seconds,alpha\n", "no rows"),
        ("0,0\n1\n", "row 2: expected seconds and a value, got 1"),
        ("0,0\none,1\n", "row 2: 'one', '1' are not two numbers"),
        ("0,0\n0,1\n", "row 2: seconds must start at 0 or later and increase"),
        ("-1,0\n", "row 1: seconds must start"),
        ("0,nan\n", "row 1: 0.0, nan must be finite"),
    ],
)
def test_a_bad_curve_names_the_file_and_the_row(tmp_path, text, message):
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        Curve.read(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_curve(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        Curve.read(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a text file"):
        Curve.read(tmp_path / "binary.csv")
