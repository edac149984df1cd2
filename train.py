"""Train: a recipe in, a checkpoint and an exported bundle out.

    python train.py --config=configs/audio2exp.py --workdir=runs/a2e --config.records=records/ ...

Start the same command again to go on from the newest checkpoint. On several hosts give each --coordinator=host:port,
--num_processes and --process_id, or start it under SLURM's srun.
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from convert.export import NotInReference, export
from ctjax import cli, config, parallel
from ctjax.train import loop, tasks

# What a task leaves for the original PyTorch code: exported bundle -> file.
REFERENCE_FILES = {"audio2exp": ("audio2exp", "lipControlNet.pt"), "renderer": ("renderer", "renderer.pth.tar")}

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The recipe, e.g. configs/audio2exp.py; --config.FIELD=... changes it.")
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
    except AttributeError as error:
        if FLAGS.is_parsed():
            raise
        # a --config.FIELD that the recipe does not have; the message names the nearest one there
        told = " ".join(str(error).split())
        sys.exit(f"train.py: error: the recipe has no field {told} (others can be added in a recipe of your own)")
