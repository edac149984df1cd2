"""Alpha over training steps and over a clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.motion.alpha import AlphaCurve, Ramp
from ctjax.types import UserError


@pytest.mark.parametrize("kind", ["linear", "cosine", "staged"])
def test_ramps_rise_from_start_to_end(kind):
    ramp = jax.jit(jax.vmap(Ramp(kind, steps=100, begin=10, start=0.1, end=0.9)))
    values = ramp(jnp.arange(200))
    np.testing.assert_allclose(values[:11], 0.1, atol=1e-6)
    np.testing.assert_allclose(values[110:], 0.9, atol=1e-6)
    assert (jnp.diff(values) >= 0).all()


def test_shapes_of_the_ramps():
    assert Ramp("linear", steps=100)(25) == pytest.approx(0.25)
    assert Ramp("cosine", steps=100)(25) == pytest.approx((1 - np.cos(np.pi / 4)) / 2)
    assert Ramp("cosine", steps=100)(50) == pytest.approx(0.5)
    staged = [float(Ramp("staged", steps=100, stages=4)(step)) for step in range(100)]
    assert sorted(set(staged)) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [staged.count(value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)] == [20] * 5


def test_no_steps_is_a_jump():
    assert [float(Ramp("linear", steps=0, begin=3)(step)) for step in (2, 3, 4)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "wrong", [{"kind": "wavy"}, {"steps": -1}, {"begin": -1}, {"stages": 0}, {"end": float("nan")}]
)
def test_senseless_ramps_are_refused(wrong):
    with pytest.raises(UserError, match="alpha ramp"):
        Ramp(**wrong)


def test_curve_interpolates_and_holds_its_ends():
    curve = AlphaCurve([(1.0, 0.0), (2.0, 1.0), (4.0, 0.5)])
    got = curve.at(np.array([0.0, 1.0, 1.25, 2.0, 3.0, 4.0, 9.0]))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [0.0, 0.0, 0.25, 1.0, 0.75, 0.5, 0.5])
    np.testing.assert_allclose(curve.frames(25, 3, 25.0), [0.0, 0.04, 0.08], atol=1e-7)
    np.testing.assert_allclose(AlphaCurve.constant(0.7).frames(0, 2, 30.0), 0.7, atol=1e-7)


def test_curve_from_a_file(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("\ufeffseconds,alpha\n# closed, then open\n0, 0\n\n2,1\n", encoding="utf-8")
    np.testing.assert_allclose(AlphaCurve.read(path).at(np.array([1.0])), 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("seconds,alpha\n", "no rows"),
        ("0,0\n1\n", "row 2: expected seconds and alpha, got 1"),
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
        AlphaCurve.read(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_curve(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        AlphaCurve.read(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a text file"):
        AlphaCurve.read(tmp_path / "binary.csv")
