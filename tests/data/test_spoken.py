"""Examples of speech with phoneme labels, cut from a corpus."""

import numpy as np
import pytest

from ctjax.data.synthetic.spoken import RECEPTIVE_FIELD, STRIDE, Corpus, SpokenSentences, open_corpus
from ctjax.types import UserError

STEPS = 60


@pytest.fixture
def corpus():
    """Three sentences whose label can be read off the sound: label 3 is loud, label 2 is quiet."""
    labels = np.tile(np.repeat(np.array([2, 3], np.int16), 10), 6)
    samples = np.where(np.repeat(labels, STRIDE) == 3, 8000, 1000).astype(np.int16)
    samples[::2] *= -1
    return Corpus(samples, labels, np.array([40, 80, 120]))


def test_labels_stay_with_their_sound(corpus):
    spoken = SpokenSentences(corpus, steps=STEPS)
    for seed in range(12):
        example = spoken.random_map(seed % 3, np.random.default_rng(seed))
        waveform, labels = example["waveform"], example["labels"]
        assert waveform.shape == ((STEPS - 1) * STRIDE + RECEPTIVE_FIELD,) and waveform.dtype == np.float32
        assert labels.shape == (STEPS,) and labels.dtype == np.int32
        if not labels.any():  # an example without speech
            continue
        level = np.sqrt(np.mean(waveform[: STEPS * STRIDE].reshape(STEPS, STRIDE) ** 2, axis=1))
        assert level[labels == 3].min() > 2 * level[labels == 2].max()
        assert level[labels == 2].min() > level[labels == 0].max(initial=0.0)


def test_an_example_depends_on_its_number_and_key_alone(corpus):
    spoken = SpokenSentences(corpus, steps=STEPS)
    one, again = (spoken.random_map(1, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one["waveform"], again["waveform"])
    other = spoken.random_map(1, np.random.default_rng(6))
    assert (one["waveform"] != other["waveform"]).any()


def test_a_damaged_corpus_is_named(tmp_path):
    (tmp_path / "train-3.npz").write_bytes(b"not a corpus")
    with pytest.raises(UserError, match="train-3.npz: no corpus of speech"):
        open_corpus(tmp_path, 3, held_out=False)


def test_a_corpus_is_spoken_once(tmp_path):
    pytest.importorskip("espeakng_loader")
    first = open_corpus(tmp_path, 2, held_out=True)
    assert first.ends[-1] == len(first.labels) == len(first.samples) // STRIDE
    assert first.labels.max() > 0
    written = (tmp_path / "held_out-2.npz").stat().st_mtime_ns
    np.testing.assert_array_equal(open_corpus(tmp_path, 2, held_out=True).samples, first.samples)
    assert (tmp_path / "held_out-2.npz").stat().st_mtime_ns == written
