"""Prepare footage for training: a folder of videos in, records out.

    python prepare.py --source=videos/ --output=records/ --hubert=bundles/hubert --renderer=bundles/renderer
    python prepare.py --synthetic=1000 --size=128 --output=records/synthetic
    python prepare.py --records=records/synthetic --output=records/new --hubert=bundles/hubert  # features anew

Clips at 25 frames a second and 16 kHz, one face each, cropped square with 68 landmarks, with the frozen networks'
features. Kill it whenever you like and start it again; give --shard=0/4 .. 3/4 to four machines that share the output.
"""

from absl import flags

from ctjax import cli, config
from ctjax.data import prepare
from ctjax.data.refeature import refeature
from ctjax.types import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "Folder of videos, nested as you like.")
flags.DEFINE_integer("synthetic", 0, "Instead of videos: this many clips of synthetic speakers; see docs/synthetic.md.")
flags.DEFINE_string("records", None, "Instead of videos: records, whose features are made anew by the bundles given.")
flags.DEFINE_integer("seed", 0, "Of the synthetic speakers.")
flags.DEFINE_string("output", None, "Folder of the records to make.")
flags.DEFINE_enum("layout", "folder", ["folder", "hdtf", "mead"], "How the folder is laid out; see docs/training.md.")
flags.DEFINE_string("list", None, "Table (tabs; file, person, split) of the videos to take, instead of all.")
flags.DEFINE_string("hubert", None, "Bundle of the speech network, or untrained; without it no speech features.")
flags.DEFINE_string("renderer", None, "Bundle of the renderer, or untrained; without it no keypoints and poses.")
flags.DEFINE_string("sync_expert", None, "Bundle of a sync expert; clips it finds out of sync are left out.")
flags.DEFINE_integer("max_offset", 1, "Frames that sound and picture may be apart, with --sync_expert.")
flags.DEFINE_integer("size", 256, "Side of the crops in pixels.")
flags.DEFINE_float("min_seconds", 1.0, "Shorter clips are left out.")
flags.DEFINE_float("max_seconds", 10.0, "Longer ones are divided.")
flags.DEFINE_integer("min_face_px", 80, "Width of the smallest face taken, in pixels of the video.")
flags.DEFINE_string("shard", "0/1", "Which share of the videos this host does: i/n, i from 0.")
flags.DEFINE_integer("workers", None, "Processes that read videos; by default one per core. 0: in this process.")
flags.DEFINE_boolean("debug", False, "Show tracebacks.")
flags.mark_flags_as_required(["output"])


def main() -> None:
    cli.enable_compilation_cache()
    if FLAGS.records:
        for name in ("source", "synthetic", "shard"):
            if FLAGS[name].present:
                raise UserError(f"--{name} does not go with --records, where one host does all the clips: leave it out")
        manifest = refeature(FLAGS.records, FLAGS.output, hubert=FLAGS.hubert, renderer=FLAGS.renderer)
        print(f"records: {FLAGS.output}; features: {', '.join(manifest.features)}")
        return
    try:
        index, count = (int(part) for part in FLAGS.shard.split("/"))
    except ValueError:
        raise UserError(f"--shard={FLAGS.shard}: should be like 0/4, the first of four") from None
    values = {
        "source": FLAGS.source,
        "output": FLAGS.output,
        "synthetic": FLAGS.synthetic,
        "seed": FLAGS.seed,
        "layout": FLAGS.layout,
        "listing": FLAGS.list,
        "hubert": FLAGS.hubert,
        "renderer": FLAGS.renderer,
        "sync_expert": FLAGS.sync_expert,
        "max_offset": FLAGS.max_offset,
        "shard": (index, count),
        "cut": {name: FLAGS[name].value for name in ("size", "min_seconds", "max_seconds", "min_face_px")},
        **({} if FLAGS.workers is None else {"workers": FLAGS.workers}),
    }
    try:
        settings = config.from_mapping(prepare.PrepareConfig, values)
    except ValueError as error:
        raise UserError(str(error)) from error
    summary = prepare.prepare(settings)
    if summary is not None:
        print(summary)
        print(f"records: {FLAGS.output}; look at {FLAGS.output}/report.html")


if __name__ == "__main__":
    cli.run(main, debug=lambda: FLAGS.debug)
