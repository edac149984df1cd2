"""Makes a face speak: `infer.py --source portrait.jpg --audio speech.wav --output out.mp4`.

Without --bundle, --source or --audio it takes those of the demo that comes with the package.
"""

from __future__ import annotations

from absl import flags

from ctjax import cli
from ctjax.types import UserError

_BUNDLE = flags.DEFINE_string(
    "bundle", None, "Folder of converted weights (`python -m convert`); the demo's if not given."
)
_SOURCE = flags.DEFINE_string("source", None, "Picture or video of the face that is to speak; the demo's if not given.")
_AUDIO = flags.DEFINE_string(
    "audio", None, "Speech: any sound file, or a video whose sound to use; the demo's if not given."
)
_OUTPUT = flags.DEFINE_string("output", "out/demo.mp4", "The mp4 to write; its folder is made if need be.")
_DRIVING = flags.DEFINE_string("driving", None, "Video whose head pose and expression move a source picture.")
_ALPHA = flags.DEFINE_float(
    "alpha",
    None,
    "Mouth opening: 0 closed, about 0.5 natural, above 1 exaggerated; 0.7 if not given, 1 for the demo's head.",
)
_ALPHA_CURVE = flags.DEFINE_string(
    "alpha_curve", None, "CSV of seconds,alpha: mouth opening over time, instead of --alpha."
)
_YAW = flags.DEFINE_string("yaw", None, "Turn the head to this angle in degrees, or CSV of seconds,degrees.")
_PITCH = flags.DEFINE_string("pitch", None, "As --yaw: nod.")
_ROLL = flags.DEFINE_string("roll", None, "As --yaw: tilt.")
_SIZE = flags.DEFINE_integer(
    "size", None, "Side of the face picture, for instance 256 or 512; the bundle's own if not given."
)
_FPS = flags.DEFINE_float("fps", 25.0, "Frames a second of the output.")
_EXTEND = flags.DEFINE_enum(
    "extend", "pingpong", ["pingpong", "hold", "loop"], "How a video shorter than the sound goes on."
)
_FACE = flags.DEFINE_integer("face", None, "Which of several faces, from the left, starting at 0; else the largest.")
_BOX = flags.DEFINE_list(
    "box", None, "The square to render in pixels, x0,y0,x1,y1, about 1.4 times the face, instead of detection."
)
_TRACKING = flags.DEFINE_enum("tracking", "smooth", ["smooth", "fixed"], "Follow a moving face, or keep one box.")
_CROP_ONLY = flags.DEFINE_bool("crop_only", False, "Write the face alone, not the whole frame.")
_SIDE_BY_SIDE = flags.DEFINE_bool("side_by_side", False, "Write source and result side by side.")
_SILENCE = flags.DEFINE_string("silence_audio", None, "Recording that begins with silence; computed if not given.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Arithmetic of the networks.")
_CHUNK = flags.DEFINE_integer(
    "chunk", None, "Frames rendered at once; chosen for the device if not given.", lower_bound=1
)
_CRF = flags.DEFINE_integer("crf", 18, "H.264 quality, 1 best to 51 smallest; 0 is lossless, which few players show.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main() -> None:
    """Flags to one library call."""
    cli.enable_compilation_cache()
    from ctjax.infer import demo
    from ctjax.infer.animation import Inputs
    from ctjax.infer.options import AnimateOptions, curve_or_number
    from ctjax.infer.talking_head import TalkingHead

    _refuse_contradictions()
    if _BUNDLE.value is not None and (_SOURCE.value is None or _AUDIO.value is None):
        raise UserError("--bundle needs --source and --audio: a face and what it is to say")
    source, audio = (given or own for given, own in zip((_SOURCE.value, _AUDIO.value), demo.example(), strict=True))
    usual = AnimateOptions.alpha if _BUNDLE.value else demo.ALPHA
    alpha = usual if _ALPHA.value is None else _ALPHA.value
    options = AnimateOptions(
        fps=_FPS.value,
        alpha=curve_or_number("alpha_curve", _ALPHA_CURVE.value) if _ALPHA_CURVE.value else alpha,
        yaw=curve_or_number("yaw", _YAW.value),
        pitch=curve_or_number("pitch", _PITCH.value),
        roll=curve_or_number("roll", _ROLL.value),
        extend=_EXTEND.value,
        face=_FACE.value,
        box=_BOX.value,
        tracking=_TRACKING.value,
        layout="crop" if _CROP_ONLY.value else "side_by_side" if _SIDE_BY_SIDE.value else "full",
        silence_audio=_SILENCE.value,
        crf=_CRF.value,
    )
    # Before the networks are loaded.
    Inputs.open(source, audio, _DRIVING.value, _SILENCE.value).check_output(_OUTPUT.value)
    if _BUNDLE.value is None:
        print(demo.NOTICE)
    bundle = _BUNDLE.value or demo.bundle()
    head = TalkingHead.from_bundle(bundle, size=_SIZE.value, dtype=_DTYPE.value, chunk=_CHUNK.value)
    animation = head.animate(source=source, audio=audio, driving=_DRIVING.value, options=options)
    animation.save(_OUTPUT.value, progress=True)
    print(f"{_OUTPUT.value}: {animation.summary()}")
    if _BUNDLE.value is None:
        print(demo.next_steps())


def _refuse_contradictions() -> None:
    files = (_BUNDLE, _SOURCE, _AUDIO, _OUTPUT, _DRIVING, _ALPHA_CURVE, _SILENCE)
    if empty := [flag.name for flag in files if flag.value == ""]:
        raise UserError(
            f"--{empty[0]} is empty: give a path, or leave it out (a variable of the shell that is not set?)"
        )
    for pair in ((_CROP_ONLY, _SIDE_BY_SIDE), (_ALPHA, _ALPHA_CURVE), (_FACE, _BOX)):
        if all(flag.value is not None and flag.value is not False for flag in pair):
            raise UserError(f"--{pair[0].name} and --{pair[1].name} exclude each other")


if __name__ == "__main__":
    cli.run(main, debug=lambda: _DEBUG.value)
