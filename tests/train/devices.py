"""Trains by the recipes of a JSON file, one after the other, on the CPU devices that XLA_FLAGS asks for: a program,
because jax fixes its devices when it starts.

python devices.py RECIPES.json FOLDER [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import json
import pathlib
import sys

import jax
from absl import flags

from ctjax import parallel
from ctjax.train import loop, tasks


def main(recipes, folder, coordinator=None, count=None, index=None):
    if coordinator:
        parallel.connect(coordinator, int(count), int(index))
    for name, values in json.loads(pathlib.Path(recipes).read_text()).items():
        recipe = tasks.read(values)
        loop.run(recipe.build(), recipe.config.loop, folder=pathlib.Path(folder) / name, about=values)
    if coordinator:
        jax.distributed.shutdown()


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    main(*sys.argv[1:])
