"""The offset of sound against pictures: found where it is, and only trusted where the expert is sure."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from ctjax import weights
from ctjax.data.records import RecordSet
from ctjax.data.sync_offset import REACH, SURE, SyncGate, best_offset
from ctjax.losses.sync_expert import MelTowerConfig, SyncExpert, SyncExpertConfig
from ctjax.losses.wav2lip_syncnet import Wav2LipSyncNetConfig
from ctjax.losses.wav2lip_syncnet import network as wav2lip

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_records

OWN = SyncExpertConfig(frames=3, crop=16, widths=(8,), mel=MelTowerConfig(widths=(8, 8), embedding=16))
WAV2LIP = Wav2LipSyncNetConfig((8,) * 5, (8,) * 5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pair(late, noise, windows=120, seed=0):
    """Embeddings of mouths and of a sound that comes `late` frames later."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(windows + 2 * REACH, 16))
    mouths, sounds = (unit(meaning + noise * rng.normal(size=meaning.shape)) for _ in range(2))
    return mouths[REACH : REACH + windows], np.roll(sounds, late, 0)[REACH : REACH + windows]


@pytest.mark.parametrize("late", [-7, -2, 0, 1, 5, REACH])
def test_the_offset_is_found(late):
    found = best_offset(*pair(late, noise=1.0), limit=1)
    assert found.frames == late
    assert (found.sure > SURE) == (abs(late) > 1)


def test_an_expert_that_hears_nothing_is_not_sure():
    sure = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sure.append(best_offset(unit(rng.normal(size=(90, 16))), unit(rng.normal(size=(90, 16))), 1).sure)
    # 22 offsets compete, so chance alone gives some differences, but seldom much above the bound
    assert np.mean(np.array(sure) > 2 * SURE) < 0.1
    assert best_offset(*pair(3, 1.0, windows=2 * REACH + 5), limit=1) is None


@pytest.mark.parametrize(
    ("name", "config", "build"), [("sync_expert", OWN, SyncExpert), ("wav2lip_syncnet", WAV2LIP, wav2lip)]
)
def test_clips_of_any_length_are_embedded_run_by_run(tmp_path, name, config, build):
    network = build(config)
    weights.save_bundle(
        tmp_path / name, network=name, config=config, params=jax.device_get(network.init(jax.random.key(0)))
    )
    clip = RecordSet([toy_records.write(tmp_path / "records", clips=3, persons=3, frames=40)])[0]
    gate = SyncGate(tmp_path / name, limit=1)
    mouths, sounds = gate._embeddings(clip)
    runs = 40 - gate.expert.frames + 1
    assert mouths.shape == sounds.shape and len(mouths) == runs
    np.testing.assert_allclose(np.linalg.norm(mouths, axis=-1), 1, atol=1e-3)
    whole = gate._embeddings(_Part(clip, 36))  # a block and a bit: what stands in a clip does not depend on its end
    np.testing.assert_allclose(whole[0], mouths[: len(whole[0])], atol=1e-5)


class _Part:
    def __init__(self, clip, frames):
        self._clip, self.info = clip, type(clip.info)(clip.info.id, clip.info.person, clip.info.split, frames)

    def __getitem__(self, name):
        return self._clip[name]

    def images(self, frames):
        return self._clip.images(frames)
