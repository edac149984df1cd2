"""Frames are divided over all local devices and come out the same."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

TESTS = pathlib.Path(__file__).parents[1]
# jax fixes its devices when it starts, so each number of them has a process of its own.
PROGRAM = """
import sys
import jax
import numpy as np
from ctjax.infer.talking_head import TalkingHead

bundle, picture, sound, box, output = sys.argv[1:]
head = TalkingHead.from_bundle(bundle, chunk=8)
speak = head.speaking.speak

def divided(*chunk):
    pictures = speak(*chunk)
    assert len({str(shard.index) for shard in pictures.addressable_shards}) == len(jax.devices())
    return pictures

head.speaking.speak = divided
clip = head.animate(source=picture, audio=sound, box=box.split(","), layout="crop")
np.save(output, np.stack(list(clip)))
"""


@pytest.mark.full
def test_two_devices_show_what_one_does(bundle, media, tmp_path):
    frames = []
    for devices in (1, 2):
        file = tmp_path / f"{devices}.npy"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        }
        inputs = [str(bundle), str(media / "portrait.png"), str(media / "speech.wav"), "24,20,104,100", str(file)]
        subprocess.run([sys.executable, "-c", PROGRAM, *inputs], check=True, env=environment)
        frames.append(np.load(file).astype(int))
    assert len(frames[0]) > 25 and np.abs(frames[0] - frames[1]).max() <= 1
