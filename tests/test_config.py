"""Configs read strictly: what does not fit is named with its place, and a typo with what was meant."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ctjax.config import ConfigError, from_mapping, to_mapping

ROOT = pathlib.Path(__file__).parent.parent


@dataclass(frozen=True)
class Inner:
    width: int
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    many: tuple[Inner, ...] = ()
    optional: Inner | None = None
    mode: Literal["a", "b"] = "a"
    flag: bool = False
    table: dict[str, float] = field(default_factory=dict)
    anything: Any = None

    def __post_init__(self):
        if self.name == "forbidden":
            raise ValueError("that name is forbidden")


FULL = Outer("x", Inner(3), (4,), (2, "b"), (Inner(1), Inner(2, 0.25)), Inner(9), "b", True, {"k": 1.0}, [1, {"z": 2}])


@pytest.mark.parametrize("config", [FULL, Outer("y", Inner(1))])
def test_round_trip_through_json(config):
    assert from_mapping(Outer, json.loads(json.dumps(to_mapping(config)))) == config
    assert from_mapping(Outer, json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert from_mapping(Outer, to_mapping(config)) == config


def test_values_of_the_right_kind_are_taken():
    read = from_mapping(Outer, {"name": "x", "inner": {"width": 3, "rate": 1}, "sizes": [5]})
    assert read.inner.rate == 1.0 and isinstance(read.inner.rate, float) and read.sizes == (5,)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"inner": {"width": 1}}, "Outer: name is missing"),
        ({"name": "x", "inner": {}}, "Outer.inner: width is missing"),
        ({"name": "x", "inner": {"widht": 1}}, "Outer.inner: unknown key widht, did you mean width"),
        ({"name": "x", "inner": {"width": 1, "zzz": 1}}, r"unknown key zzz \(it has width, rate\)"),
        ({"name": "x", "inner": {"width": 1.5}}, r"Outer\.inner\.width: expected int, got 1\.5"),
        ({"name": "x", "inner": {"width": True}}, r"Outer\.inner\.width: expected int, got True"),
        ({"name": "x", "inner": {"width": "3"}}, r"Outer\.inner\.width: expected int, got '3'"),
        ({"name": 3, "inner": {"width": 1}}, r"Outer\.name: expected str, got 3"),
        ({"name": "x", "inner": 3}, r"Outer\.inner: expected a mapping of Inner's fields"),
        ({"name": "x", "inner": {"width": 1}, "sizes": 3}, r"Outer\.sizes: expected a list, got 3"),
        ({"name": "x", "inner": {"width": 1}, "sizes": [1, "a"]}, r"Outer\.sizes\[1\]: expected int, got 'a'"),
        ({"name": "x", "inner": {"width": 1}, "pair": [1]}, r"Outer\.pair: expected 2 values, got 1"),
        ({"name": "x", "inner": {"width": 1}, "many": [{"width": 1}, {}]}, r"Outer\.many\[1\]: width is missing"),
        ({"name": "x", "inner": {"width": 1}, "optional": {"rate": 1}}, r"Outer\.optional: width is missing"),
        ({"name": "x", "inner": {"width": 1}, "mode": "c"}, r"Outer\.mode: 'c' is not one of 'a', 'b'"),
        ({"name": "x", "inner": {"width": 1}, "flag": 1}, r"Outer\.flag: expected bool, got 1"),
        ({"name": "x", "inner": {"width": 1}, "table": {"k": "v"}}, r"Outer\.table\['k'\]: expected float, got 'v'"),
        ({"name": "forbidden", "inner": {"width": 1}}, "Outer: that name is forbidden"),
        (3, "expected a mapping of Outer's fields, got 3"),
    ],
)
def test_what_does_not_fit_is_named(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Outer, mapping)


def test_all_problems_come_together():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"nmae": "x", "inner": {"width": "a"}, "sizes": 1})
    for part in ("did you mean name", "name is missing", "Outer.inner.width", "Outer.sizes"):
        assert part in str(caught.value)


def train(recipe, *flags):
    command = [sys.executable, "train.py", f"--config={recipe}", "--workdir=unused", *flags]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def broken_recipe(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def get_config():\n    return None.loop\n")
    return file


def test_a_recipe_that_cannot_be_read_is_one_line(broken_recipe):
    for recipe, message in (
        ("configs/none.py", "there is no file configs/none.py"),
        ("configs/smoke.py:foo", "one of sync_expert, audio2exp, renderer is needed"),
        (broken_recipe, "AttributeError: 'NoneType' object has no attribute 'loop'"),
    ):
        done = train(recipe)
        assert done.returncode == 1
        assert done.stderr.startswith(f"train.py: error: --config={recipe}: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_debug_shows_where_a_recipe_fails(broken_recipe):
    done = train(broken_recipe, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and f'"{broken_recipe}", line 2, in get_config' in done.stderr
