"""Did Audio2Exp learn? A finished run on held-out clips: losses, the mouth's opening by alpha, and silence.

    python benchmarks/audio2exp_learning.py --workdir=runs/audio2exp --examples=64

Each example is a few frames of a held-out clip under its own sound and under another's, after the silent pass, as at
inference. Printed with standard errors over examples: the sync loss and its change against alpha 0 (paired), the
perceptual loss outside the mouth, the mouth's opening (inner lips over the eyes' distance, by the face mesh on the
rendered frames) under speech and under silence. `--output` keeps the figures as JSON.
"""

import dataclasses
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from absl import flags

from ctjax import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of a finished run of Audio2Exp.")
flags.DEFINE_integer("examples", 64, "Held-out examples of each kind of sound.", lower_bound=2)
flags.DEFINE_integer("batch", 4, "Examples at once.", lower_bound=1)
flags.DEFINE_list("alphas", ["0", "0.25", "0.5", "0.7", "1"], "Mouth openings to measure.")
flags.DEFINE_string("split", "held_out", "Split of the clips.")
flags.DEFINE_string("output", None, "File for the figures, JSON.")
flags.mark_flag_as_required("workdir")

MESH_SIDE = 256  # the face mesh was made for faces of about 200 pixels
PAIRINGS = {"own sound": {"in_sync": 1.0}, "another's sound": {"other_person": 1.0}}


def open_run(workdir: pathlib.Path):
    """(task, its trained parameters, frozen parameters) of a run, with the configuration that it was trained by."""
    import jax

    from ctjax.train import tasks
    from ctjax.types import UserError

    try:
        values = json.loads((workdir / "config.json").read_text())
        values.pop("fingerprints", None)  # of the bundles that the run was begun with
    except OSError as error:
        raise UserError(f"{workdir}: not the folder of a run ({error.strerror})") from error
    if values.get("task") != "audio2exp" or not (workdir / "export" / "audio2exp").is_dir():
        raise UserError(f"{workdir}: not a finished run of Audio2Exp (export/audio2exp is missing)")
    recipe = tasks.read({**values, "audio2exp": str(workdir / "export" / "audio2exp")})
    task = recipe.build()
    return task, task.init(jax.random.key(0))["params"], jax.device_put(task.frozen)


def batches(task, shares: dict[str, float]):
    """Held-out examples whose sound comes from where `shares` says, always the same ones."""
    from ctjax.data import pipeline, transforms
    from ctjax.data.transforms import PairingConfig
    from ctjax.parallel import Rows

    none = dict.fromkeys(("in_sync", "same_clip", "same_person", "other_person"), 0.0)
    clips = task.records.of_split(FLAGS.split, min_frames=task.config.frames)
    pairing = dataclasses.replace(PairingConfig(), **(none | shares))
    examples = transforms.DrivenFrames(
        task.records, clips, frames=task.config.frames, pairing=pairing, extras=task.extras
    )
    stream = transforms.in_order(clips, examples, 0)
    count = -(-FLAGS.examples // FLAGS.batch)
    return pipeline.first_batches(stream, Rows(FLAGS.batch, 0, FLAGS.batch), count, task.config.reading)


class Aperture:
    """The mouth's opening on rendered frames; NaN where no face is found."""

    def __init__(self):
        from ctjax.faces.find import FaceFinder

        self._finder = FaceFinder()

    def __call__(self, images_01):
        """ "b t h w 3" -> "b t"."""
        import cv2
        import numpy as np

        from ctjax.evaluate.mouth import aperture
        from ctjax.faces.landmarks import to_68

        def one(image_01):
            image = np.round(np.clip(image_01, 0, 1) * 255).astype(np.uint8)
            if image.shape[0] < MESH_SIDE:
                image = cv2.resize(image, (MESH_SIDE, MESH_SIDE), interpolation=cv2.INTER_CUBIC)
            faces = self._finder.find(image)
            return aperture(to_68(faces[0].points)[None])[0] if faces else np.nan

        flat = images_01.reshape(-1, *images_01.shape[2:])
        return np.array([one(image) for image in flat]).reshape(images_01.shape[:2])


def measure(task, params, frozen) -> dict[str, dict[str, dict[str, object]]]:
    """{sound: {row: {figure: values of each example}}}; rows are "source" (as filmed), "unedited" and each alpha."""
    import jax
    import numpy as np

    aperture = Aperture()
    judge = jax.jit(task.terms.judge)
    found: dict[str, dict[str, dict[str, list]]] = {}

    def add(sound: str, row: str, **values) -> None:
        for name, value in values.items():
            found.setdefault(sound, {}).setdefault(row, {}).setdefault(name, []).append(np.asarray(value))

    rows = {"unedited": (0.0, 0.0)} | {f"alpha {float(a):g}": (float(a), 1.0) for a in FLAGS.alphas}
    for sound, shares in PAIRINGS.items():
        for batch in batches(task, shares):
            source = batch["source_u8"] / np.float32(255)
            encoded = task.encode(params, frozen, batch)
            found_here = judge(frozen, source, encoded.sounds, batch)
            add(sound, "source", opening=aperture(source).mean(1), **found_here)
            for row, alphas in rows.items():
                images = task.render(params, frozen, encoded, batch, *alphas)
                found_here = judge(frozen, images, encoded.sounds, batch)
                add(sound, row, opening=aperture(np.asarray(images, np.float32)).mean(1), **found_here)
    for batch in batches(task, PAIRINGS["own sound"]):
        quiet = {**batch, "hubert": np.broadcast_to(task.records.silence, batch["hubert"].shape)}
        encoded = task.encode(params, frozen, quiet)
        for row, alphas in rows.items():
            images = np.asarray(task.render(params, frozen, encoded, quiet, *alphas), np.float32)
            add("silence", row, opening=aperture(images).mean(1))
    return {
        s: {r: {n: np.concatenate(v)[: FLAGS.examples] for n, v in f.items()} for r, f in by.items()}
        for s, by in found.items()
    }


def figure(values) -> str:
    """Mean and standard error of the examples that have a value."""
    import numpy as np

    known = values[np.isfinite(values)]
    if len(known) < 2:
        return "-"
    return f"{known.mean():.4f} ± {known.std(ddof=1) / np.sqrt(len(known)):.4f}"


def tables(found) -> str:
    """Markdown, one table a kind of sound."""
    lines = []
    for sound, rows in found.items():
        columns = ("sync", "perceptual", "opening") if "sync" in next(iter(rows.values())) else ("opening",)
        base = rows.get("alpha 0")
        against = ["sync against alpha 0"] if base is not None and "sync" in columns else []
        lines += [
            f"\n{sound}\n",
            "| | " + " | ".join([*columns, *against]) + " |",
            "|---" * (1 + len(columns) + len(against)) + "|",
        ]
        for row, values in rows.items():
            cells = [figure(values[name]) for name in columns]
            cells += [figure(values["sync"] - base["sync"]) for _ in against]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    cli.enable_compilation_cache()
    task, params, frozen = open_run(pathlib.Path(FLAGS.workdir))
    found = measure(task, params, frozen)
    print(tables(found))
    if FLAGS.output:
        plain = {s: {r: {n: v.tolist() for n, v in f.items()} for r, f in by.items()} for s, by in found.items()}
        pathlib.Path(FLAGS.output).write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
