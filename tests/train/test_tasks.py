"""Recipes: every config file fits its task, and every mistake in one is named."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ctjax.train import tasks
from ctjax.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = [
    *((name, None) for name in ("sync_expert", "audio2exp", "renderer")),
    ("sync_expert", "mel"),
    ("sync_expert", "small"),
    *(("smoke", name) for name in ("sync_expert", "audio2exp", "renderer")),
]


def values(name, variant):
    get_config = importlib.import_module(f"configs.{name}").get_config
    return get_config(*([variant] if variant else [])).to_dict()


@pytest.mark.parametrize(("name", "variant"), RECIPES)
def test_config_files_fit_their_tasks(name, variant):
    recipe = tasks.read(values(name, variant))
    assert recipe.config.task == (variant if name == "smoke" else name)
    assert recipe.config.loop.steps > 0


def _has(tree, path):
    for part in path.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


@pytest.mark.parametrize(
    ("page", "recipes"),
    [
        ("training", (("sync_expert", None), ("audio2exp", None))),
        ("training_renderer", (("renderer", None),)),
    ],
)
def test_what_the_pages_say_can_be_set_is_in_the_recipes(page, recipes):
    """absl sets only fields that the config file has."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    trees = [values(*recipe) for recipe in recipes]
    sections = {key for tree in trees for key, value in tree.items() if isinstance(value, dict)}
    named = set(re.findall(r"--config\.([a-z0-9_]+(?:\.[a-z0-9_]+)*)", text))
    named |= {n for n in re.findall(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)+)[=`]", text) if n.split(".")[0] in sections}
    assert len(named) > 8
    assert not [name for name in sorted(named) if not any(_has(tree, name) for tree in trees)]


def test_the_papers_numbers_are_the_defaults():
    config = tasks.read(values("audio2exp", None)).config
    assert config.optimizer.lr == 1e-5
    assert config.weights.sync == 0.3 and config.weights.perceptual == 1.0
    assert config.silent_share == 0.5 and config.frames == 5
    assert (config.alpha.start, config.alpha.end) == (0.0, 1.0)
    assert config.weights.anchor == config.weights.smoothness == 0.0
    assert not config.train_audio_encoder


def changed(path, value):
    tree = values("audio2exp", None)
    *parents, last = path.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.lrr", 1.0, r"unknown key lrr, did you mean lr\?"),
        ("framse", 5, r"unknown key framse, did you mean frames\?"),
        ("loop.batch", "eight", r"loop\.batch: expected int"),
        ("loop.steps", -1, "steps must be at least 0"),
        ("silent_share", 1.5, "silent_share is a probability"),
        ("pairing.in_sync", -1.0, "must not be negative"),
        ("alpha.kind", "sudden", "sudden"),
        ("compute", "float16", r"compute: 'float16' is not one of 'float32', 'bfloat16'"),
        ("optimizer.decay", "cosine", "needs decay_steps"),
        ("task", "audio2face", r"task is 'audio2face'; it must be one of sync_expert, audio2exp, renderer"),
    ],
)
def test_mistakes_are_named(path, value, message):
    with pytest.raises(UserError, match=message):
        tasks.read(changed(path, value))


def run_train(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments], env=environment, capture_output=True, text=True, cwd=ROOT
    )


def test_the_command_says_mistakes_in_one_line(tmp_path):
    smoke = "--config=configs/smoke.py:audio2exp"
    wrong_field = run_train(smoke, f"--workdir={tmp_path}", "--config.loop.stesp=3")
    assert wrong_field.returncode != 0
    assert 'Did you mean "steps"' in wrong_field.stderr and "Traceback" not in wrong_field.stderr
    no_records = run_train(smoke, f"--workdir={tmp_path}", f"--config.records={tmp_path}/none")
    assert no_records.returncode == 1
    assert "no records there" in no_records.stderr and len(no_records.stderr.strip().splitlines()) <= 2
    lonely = run_train(smoke, f"--workdir={tmp_path}", "--coordinator=localhost:1234")
    assert "--num_processes and --process_id must be given too" in lonely.stderr
