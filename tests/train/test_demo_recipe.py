"""The demo's recipe (configs/demo/) command by command, in a small world and with few steps: does every stage learn?"""

import os
import pathlib
import subprocess
import sys

import pytest

from ctjax import weights
from ctjax.train import metrics

ROOT = pathlib.Path(__file__).parents[2]
CLIPS, SIZE = 60, 64


def run(folder, script, *arguments):
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"} | os.environ  # as `make demo-weights` does
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def train(folder, config, name, steps, **changes):
    """One stage, shortened; the figures on held-out clips before and after."""
    changes = {"loop.steps": steps, "loop.evaluate_every": steps, "loop.pictures_every": 0, **changes}
    changes |= {"optimizer.warmup": 20, "optimizer.decay_steps": steps}
    flags = [f"--config.{field}={value}" for field, value in changes.items()]
    run(folder, "train.py", f"--config={ROOT / 'configs/demo' / config}", f"--workdir=runs/demo/{name}", *flags)
    lines = list(metrics.read(folder / "runs" / "demo" / name / "metrics.jsonl"))
    held_out = [
        {key.removeprefix("held_out/"): value for key, value in line.items()}
        for line in lines
        if any(key.startswith("held_out/") for key in line)
    ]
    return held_out[0], held_out[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    run(folder, "prepare.py", f"--synthetic={CLIPS}", f"--size={SIZE}", "--output=runs/demo/records128")
    return folder


@pytest.fixture(scope="module")
def stages(world):
    """All stages one after the other: the figures on held-out clips before and after each, and the expert's report."""
    found = {
        "phonemes": train(world, "phonemes.py", "phonemes", 250, sentences=200, held_out_sentences=32),
        "estimators": train(world, "renderer.py:estimators", "estimators", 1000),
        "lips": train(world, "renderer.py:lips", "lips", 600),
        "generator": train(world, "renderer.py:generator64", "renderer64", 200),
        "painter": train(
            world,
            "renderer.py:painter",
            "painter",
            200,
            start="runs/demo/renderer64/export/renderer",
            size=SIZE,
        ),
        "estimated_sources": train(world, "renderer.py:estimated_sources", "estimated_sources", 50, size=SIZE),
        "mouths": train(world, "renderer.py:mouths", "renderer", 50, size=SIZE),
    }
    bundles = ("--hubert=runs/demo/phonemes/export/hubert", "--renderer=runs/demo/renderer/export/renderer")
    run(world, "prepare.py", "--records=runs/demo/records128", "--output=runs/demo/records", *bundles)
    train(world, "sync_expert.py", "sync_expert", 300)
    manifest = weights.read_manifest(world / "runs/demo/sync_expert/export/sync_expert")
    found["sync_expert"] = manifest["provenance"]["report"]
    unchecked = {"expert.unchecked": True}
    found["audio2exp"] = train(world, "audio2exp.py:expression", "audio2exp_expression", 2500, **unchecked)
    train(world, "audio2exp.py:sync", "audio2exp", 10, **unchecked)
    return found


@pytest.mark.full
def test_networks_that_listen_and_draw_learn(stages):
    assert stages["phonemes"][1]["accuracy"] > 0.4  # 64 phonemes
    before, after = stages["estimators"]
    assert after["landmark_distance_px"] < 0.25 * before["landmark_distance_px"]
    assert after["target_pose_error_deg"] < before["target_pose_error_deg"]
    assert stages["lips"][1]["aperture_error_px"] < stages["lips"][0]["aperture_error_px"]
    drawn = stages["generator"][1]
    assert drawn["psnr_db"] > drawn["copy_psnr_db"] + 1
    for frames in ("real", "reconstructed"):
        report = stages["sync_expert"][frames]
        assert report["rank1_within_clip"] > 2 * report["chance"], frames


@pytest.mark.full
def test_audio2exp_learns(stages):
    before, after = stages["audio2exp"]
    assert after["expression"] < 0.85 * before["expression"]


@pytest.mark.full
def test_the_result_speaks(world, stages):
    run(world, "infer.py", "--bundle=runs/demo/audio2exp/export", *demo_inputs(), "--output=out.mp4")
    assert (world / "out.mp4").stat().st_size > 10_000


def demo_inputs():
    from ctjax.infer import demo

    source, audio = demo.example()
    return f"--source={source}", f"--audio={audio}"
