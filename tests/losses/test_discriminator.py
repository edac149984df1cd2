"""The discriminator's structure, its conversion, and its spectral norms' behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from convert import discriminator as conversion
from convert import rules
from ctjax.losses import discriminator as d

TINY = d.DiscriminatorConfig(scales=(1.0, 0.5), block_expansion=4, max_features=16, num_blocks=3)


@pytest.mark.parametrize("part, channels", [("discriminator", 3), ("discriminator_clip", 15)])
def test_architecture_is_read_off_the_checkpoint(part, channels):
    state = parity.record("renderer_losses").weights[part]
    config = conversion.infer_config(state)
    assert config == d.DiscriminatorConfig(channels=channels, block_expansion=8, max_features=32, num_blocks=3)
    params, report = rules.apply(conversion.TABLE, state, d.network(config).abstract, name=part)
    assert len(report.placed) == len(state)
    back = rules.invert(conversion.TABLE, params, {k: v.shape for k, v in state.items()})
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_a_state_dict_of_another_network_is_refused():
    with pytest.raises(ValueError, match="not a discriminator"):
        conversion.infer_config({"features.0.weight": np.zeros((1, 1))})


@pytest.fixture(scope="module")
def judged():
    network = d.network(TINY)
    params = network.init(jax.random.key(0))
    image = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))

    @jax.jit
    def run(params, image):
        module = network.bind(params, train=True)
        first = module(image)
        return first, network.unbind(module)

    return params, *run(params, image)


def test_every_scale_has_its_own_map(judged):
    _, verdicts, _ = judged
    assert [v.prediction.shape for v in verdicts] == [(2, 10, 10, 1), (2, 2, 2, 1)]
    assert [[m.shape[-1] for m in v.maps] for v in verdicts] == [[8, 16, 16], [8, 16, 16]]


def test_training_moves_only_the_power_iteration(judged):
    before, _, after = judged
    trainable = d.network(TINY).trainable
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    for path, changed in rules.leaves(moved).items():
        fixed = path.endswith(".conv.u") and ".down_blocks." not in path  # one number, always 1 or -1
        assert changed == (path.rsplit(".", 1)[-1] in ("u", "v") and not fixed), path
        assert not (changed and rules.leaves(trainable)[path]), path


def test_clips_stack_frame_by_frame():
    frames = jnp.arange(4 * 2 * 2 * 3).reshape(4, 2, 2, 3)
    clips = d.stack_clips(frames, 2)
    assert clips.shape == (2, 2, 2, 6)
    np.testing.assert_array_equal(clips[1, ..., 3:], frames[3])
    with pytest.raises(ValueError, match="4 frames do not divide into clips of 3"):
        d.stack_clips(frames, 3)
