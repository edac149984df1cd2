"""Train: a recipe in, a checkpoint and an exported bundle out.

    python train.py --config=configs/audio2exp.py --workdir=runs/a2e --config.records=records/ ...

Start the same command again to go on from the newest checkpoint. On several hosts give each --coordinator=host:port,
--num_processes and --process_id, or start it under SLURM's srun.
"""

import pathlib
import runpy
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from convert.export import NotInReference, export
from ctjax import cli, config, parallel
from ctjax.train import loop, tasks
from ctjax.types import UserError

# What a task leaves for the original PyTorch code: exported bundle -> file.
REFERENCE_FILES = {"audio2exp": ("audio2exp", "lipControlNet.pt"), "renderer": ("renderer", "renderer.pth.tar")}


class RecipeFile(flags.ArgumentParser):
    """Reads a recipe's file; what goes wrong in it becomes a `UserError` that names it, not pages about flags."""

    def parse(self, path: str) -> ConfigDict:
        file, *choice = path.split(":", 1)
        if not pathlib.Path(file).is_file():
            raise UserError(f"--config={path}: there is no file {file}; recipes are in configs/")
        try:
            recipe = runpy.run_path(file)["get_config"](*choice)
        except Exception as error:
            told = " ".join(str(error).split())
            raise UserError(f"--config={path}: {type(error).__name__}: {told}") from error
        if not isinstance(recipe, ConfigDict):
            raise UserError(f"--config={path}: its get_config() must return a ConfigDict, not {type(recipe).__name__}")
        return recipe.lock()


FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The recipe, e.g. configs/audio2exp.py; --config.FIELD=... changes it.")
FLAGS["config"].parser = RecipeFile()
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, logs, pictures, export.")
flags.DEFINE_string("coordinator", None, "host:port of process 0, for several processes.")
flags.DEFINE_integer("num_processes", None, "How many processes take part.")
flags.DEFINE_integer("process_id", None, "Which of them this is, counting from 0.")
flags.DEFINE_boolean("debug", False, "Show tracebacks.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    parallel.connect(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    cli.enable_compilation_cache()
    recipe = tasks.read(FLAGS.config.to_dict())
    about = config.to_mapping(recipe.config)
    outcome = loop.run(recipe.build(), recipe.config.loop, folder=FLAGS.workdir, about=about)
    if outcome.finished and parallel.is_main_process():
        exported = pathlib.Path(FLAGS.workdir) / "export"
        print(f"finished at step {outcome.step}; exported to {exported}")
        if recipe.config.task in REFERENCE_FILES:
            bundle, file = REFERENCE_FILES[recipe.config.task]
            try:
                print(export(exported / bundle, exported / file, overwrite=True))
            except NotInReference as reason:
                print(f"no {file}: {reason}")


if __name__ == "__main__":
    try:
        cli.run(main, debug=lambda: FLAGS.debug)
    except UserError as error:
        if FLAGS.is_parsed() or "--debug" in sys.argv:
            raise
        sys.exit(f"train.py: error: {error}")  # of the recipe's file, which is read before `main` begins
    except AttributeError as error:
        if FLAGS.is_parsed():
            raise
        # a --config.FIELD that the recipe does not have; the message names the nearest one there
        told = " ".join(str(error).split())
        sys.exit(f"train.py: error: the recipe has no field {told} (others can be added in a recipe of your own)")
