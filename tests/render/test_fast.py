"""The fast formulation against the same records as the plain renderer, and against the plain renderer in float64."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import renderer_replay
from parity import channels_first

from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.fast.formulation import Formulation, default_formulation
from ctjax.render.fast.renderer import FastRenderer

TAPS = Formulation(volumes="depth_taps", mask="depth_taps", frames="one_by_one")
WINOGRAD_2 = Formulation(images="winograd2", volumes="winograd2", mask="dft")
FORMULATIONS = {"direct": Formulation(), "taps": TAPS, "winograd2": WINOGRAD_2, "cpu": default_formulation("cpu")}
VARIANTS = ("plain", "gmid2", "noocc", "scale1")


def pictures(rendering, prefix=""):
    return {
        f"{prefix}prediction": channels_first(rendering.image_01),
        f"{prefix}prediction_patch": channels_first(rendering.image_01),  # the record keeps another part of the same
        f"{prefix}mask": channels_first(rendering.mask),
        f"{prefix}deformation": rendering.deformation,
        f"{prefix}occlusion_map": None if rendering.occlusion is None else channels_first(rendering.occlusion),
    }


def replay(name: str, formulation: Formulation) -> None:
    """Runs a recorded case in a formulation and holds every output that the fast renderer has to the record."""
    case = renderer_replay.case(name)
    fast = FastRenderer(case.config, formulation)
    prepared = jax.device_put(fast.prepare(case.params))
    source = case.image("source")
    canonical = jax.jit(fast.canonical_keypoints)(prepared, source)
    head_pose = jax.jit(fast.head_pose)
    pose = head_pose(prepared, source)
    encoded = jax.jit(fast.encode_source)(prepared, source, transform_keypoints(canonical, pose))
    render = jax.jit(fast.render)
    results = {
        "kp_canonical": canonical,
        "kp_source": encoded.keypoints,
        "feature_3d": channels_first(encoded.features),
    }
    changed = pose._replace(expression=case.record.inputs["exp_changed"])
    edited = transform_keypoints(canonical, changed)
    results |= pictures(render(prepared, encoded, edited), "kphe_")
    if "driving_u8" in case.record.inputs:
        driving = transform_keypoints(canonical, head_pose(prepared, case.image("driving")))
        results |= {"kp_driving": driving} | pictures(render(prepared, encoded, driving))
    else:
        results |= {"kp_driving": edited} | pictures(render(prepared, encoded, edited))
    checked = {key for key in results if key in case.record.outputs and results[key] is not None}
    for key in checked:
        case.record.check(key, np.asarray(results[key]))
    assert {"kp_canonical", "kp_source", "kp_driving", "mask", "prediction"} <= checked


@pytest.mark.parametrize("formulation", [pytest.param("direct", marks=pytest.mark.full), "cpu"])
def test_small_network(formulation):
    replay("facevid2vid_small", FORMULATIONS[formulation])


@pytest.mark.full
@pytest.mark.parametrize("formulation", ["taps", "winograd2"])
def test_small_network_in_other_formulations(formulation):
    replay("facevid2vid_small", FORMULATIONS[formulation])


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS)
def test_small_variants(variant):
    replay(f"facevid2vid_small_{variant}", FORMULATIONS["direct"])


@pytest.mark.full
@pytest.mark.parametrize("pixels", [256, 512])
def test_full_size(pixels):
    replay(f"facevid2vid_{pixels}", FORMULATIONS["cpu"])


@pytest.mark.full
def test_a_source_of_one_serves_a_batch():
    case = renderer_replay.case("facevid2vid_small_gmid2")
    fast = FastRenderer(case.config, TAPS)
    prepared = jax.device_put(fast.prepare(case.params))
    image = case.image("source")[:1]
    keypoints = jax.random.uniform(jax.random.key(0), (3, 15, 3), minval=-0.5, maxval=0.5)
    drive = jax.jit(fast.drive)
    one = jax.jit(fast.encode_source)(prepared, image, keypoints[:1])
    together = drive(prepared, one, keypoints)
    for i in range(3):
        np.testing.assert_allclose(together[i], drive(prepared, one, keypoints[i : i + 1])[0], atol=2e-4)


def test_jacobians_are_the_plain_renderers():
    case = renderer_replay.case("facevid2vid_small_jacobian")
    with pytest.raises(ValueError, match=r"no jacobians; use ctjax\.render\.renderer\.Renderer"):
        FastRenderer(case.config)


def test_a_formulation_that_does_not_exist():
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        Formulation(dtype="float16")
    with pytest.raises(ValueError, match="frames is 'all'"):
        Formulation(frames="all")


@pytest.mark.full
def test_values_and_gradients_are_the_plain_renderers_in_float64():
    """Every rewrite is exact, so in float64 nothing but rounding is left, of images and of gradients.

    In float32 the recorded gradients cannot be held: the networks have kinks (ReLU), a rounding difference of 1e-6
    carries some activations across, and each that crosses changes the gradient by a step. The plain renderer stays
    within the record's bounds only because it adds in the reference's order.
    """
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    tests = pathlib.Path(__file__).parent.parent
    environment["PYTHONPATH"] = os.pathsep.join([str(tests.parent), str(tests)])
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _compare_in_float64() -> None:
    from ctjax.render.fast import formulation as formulation_module

    formulation_module.DTYPES = ("float64",)
    case = renderer_replay.case("facevid2vid_small_gmid2")
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), case.params)
    fast, plain = FastRenderer(case.config, Formulation(dtype="float64")), case.renderer
    prepared = fast.prepare(params)
    image = case.image("source").astype(np.float64)
    keypoints = jax.random.uniform(jax.random.key(0), (2, *image.shape[:1], 15, 3), jnp.float64, -0.5, 0.5)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(renderer, tree, driving):
        source = renderer.encode_source(tree, image, keypoints[1])
        loss = lambda moved: jnp.mean(renderer.drive(tree, source, moved) ** 2)  # noqa: E731
        return jax.value_and_grad(loss)(driving)

    want, want_gradient = value_and_gradient(plain, params, keypoints[0])
    got, got_gradient = value_and_gradient(fast, prepared, keypoints[0])
    assert want_gradient.dtype == got_gradient.dtype == jnp.float64
    scale = float(jnp.abs(want_gradient).max())
    assert scale > 1e-6, "the gradient is dead, the comparison says nothing"
    # The plain renderer gives float32 images; their rounding is what remains.
    assert abs(float(got - want)) < 1e-7 * abs(float(want)), (got, want)
    worst = float(jnp.abs(got_gradient - want_gradient).max())
    assert worst < 2e-6 * scale, f"gradients differ by {worst:.3g} of {scale:.3g}"


if __name__ == "__main__":
    _compare_in_float64()
