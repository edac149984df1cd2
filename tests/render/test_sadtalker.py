"""SadTalker's renderer (mapping network, its pose, its mask cut) against its recorded run."""

import functools

import jax
import numpy as np
import pytest
import renderer_replay
from parity import Record, channels_first

from convert import rules, sadtalker
from ctjax.motion.head_pose import free_view, sadtalker_pose
from ctjax.motion.keypoints import transform_keypoints
from ctjax.nn.module import Network, Params
from ctjax.render.fast.formulation import Formulation
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.mapping import MappingConfig, MappingNet
from ctjax.render.renderer import Renderer, config_from_reference


@functools.lru_cache
def recorded() -> tuple[Record, Renderer, Params]:
    record = Record("facevid2vid_small_sadtalker")
    renderer = Renderer(config_from_reference(record.config, sadtalker=True))
    assert sadtalker.infer_config(record.weights) == renderer.config
    params = {
        part: rules.apply(sadtalker.TABLES[part], state, renderer.abstract[part], name=part)[0]
        for part, state in record.weights.items()
    }
    return record, renderer, params


@functools.lru_cache
def results() -> tuple[Record, dict[str, np.ndarray]]:
    record, renderer, params = recorded()

    @jax.jit
    def run(params, source, windows, yaw_deg, roll_deg):
        heads = {name: renderer.bind(params).mapping(window) for name, window in windows.items()}
        poses = {name: sadtalker_pose(head.head_pose) for name, head in heads.items()}
        canonical = renderer.canonical_keypoints(params, source)
        keypoints = {name: transform_keypoints(canonical, pose) for name, pose in poses.items()}
        rendering = renderer.render(
            params, renderer.encode_source(params, source, keypoints["source"]), keypoints["driving"]
        )
        driving = poses["driving"]
        turned = free_view(driving, yaw_deg=yaw_deg, roll_deg=roll_deg)
        out = {
            "kp_canonical": canonical,
            "t_source_after": poses["source"].translation,
            "kp_driving_yaw_roll_in": transform_keypoints(canonical, turned),
            "kp_driving_wo_exp": transform_keypoints(canonical, driving._replace(expression=0 * driving.expression)),
            "deformation": rendering.deformation,
        }
        return heads, keypoints, out, rendering

    inputs = record.inputs
    windows = {"source": inputs["source_semantics"], "driving": inputs["target_semantics"]}
    windows = {name: np.swapaxes(window, 1, 2) for name, window in windows.items()}
    heads, keypoints, out, rendering = run(
        params, record.image("source_u8"), windows, inputs["yaw_in"], inputs["roll_in"]
    )
    for name, head in heads.items():
        out |= {f"mapping_{name}_t": head.translation, f"mapping_{name}_exp": head.expression.reshape(2, -1)}
        for angle in renderer_replay.ANGLES:
            out[f"mapping_{name}_{angle}"] = getattr(head, f"{angle}_bins")
            out[f"mapping_{name}_{angle}_deg"] = getattr(head.head_pose, f"{angle}_deg")
        out[f"kp_{name}"] = keypoints[name]
    out["mask"] = channels_first(rendering.mask)
    out["occlusion_map"] = channels_first(rendering.occlusion)
    out["prediction"] = channels_first(rendering.image_01)
    return record, {name: np.asarray(value) for name, value in out.items()}


def test_every_recorded_output():
    record, out = results()
    renderer_replay.check_all(record, out)


def test_mask_is_returned_whole_and_cut_only_for_the_deformation():
    _, out = results()
    np.testing.assert_allclose(out["mask"].sum(1), 1.0, atol=1e-5)
    assert (out["mask"] < 1e-3).mean() > 0.1


def test_the_fast_renderer_cuts_the_mask_too():
    record, renderer, params = recorded()
    fast = FastRenderer(renderer.config, Formulation())
    prepared = fast.prepare(params)
    keypoints = {name: record.outputs[f"kp_{name}"] for name in ("source", "driving")}

    @jax.jit
    def render(prepared, source):
        return fast.render(prepared, fast.encode_source(prepared, source, keypoints["source"]), keypoints["driving"])

    rendering = render(prepared, record.image("source_u8"))
    record.check("mask", channels_first(rendering.mask))
    record.check("deformation", np.asarray(rendering.deformation))
    record.check("occlusion_map", channels_first(rendering.occlusion))
    record.check("prediction", channels_first(rendering.image_01))


def test_short_window_is_refused():
    network = Network(lambda rngs: MappingNet(MappingConfig(descriptor_nc=8), rngs=rngs))
    window = np.zeros((1, 24, 70), np.float32)
    with pytest.raises(ValueError, match="need at least 25"):
        jax.eval_shape(lambda params: network.bind(params)(window), network.abstract)
