"""`python -m convert`: PyTorch checkpoints to ctjax bundles, and back.

One command per network, `controltalk` for a whole folder, `export` for the way back, `list` for where files come from.
(argparse rather than absl: it has commands with options of their own.)
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from convert.catalogue import ENTRIES, Entry, Flag, entry_named
from convert.folder import ROLES, fit_together, scan
from convert.pack import PRECISIONS, pack
from ctjax.types import UserError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

DESCRIPTION = """\
Converts published PyTorch checkpoints to the bundles that ctjax opens.

  python -m convert controltalk checkpoints/ --output talking_head/    everything infer.py needs
  python -m convert hubert chinese-hubert-large/ --output hubert/      one network
  python -m convert export audio2exp/ --output lipControlNet.pt        back to PyTorch
  python -m convert pack talking_head/ --output small/                 half the size or less, to travel

You bring the files: nothing is downloaded, no code in a checkpoint is ever run, PyTorch need not be installed. A
bundle is a folder with the parameters and a manifest.json that records where they come from. It appears under its name
only when it is complete.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _quiet()
        options.run(options)
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        elif isinstance(error, UserError):
            print(f"convert: error: {error}", file=sys.stderr)
        else:
            what = f"{type(error).__name__}: {error}"
            print(f"convert: unexpected error: {what}\nSee where with --debug.", file=sys.stderr)
        return EXIT_ERROR


def catalogue_text() -> str:
    """Every network with where its file is to be had and under which licence."""
    blocks = []
    for entry in ENTRIES:
        lines = [f"{entry.command}: {entry.title}, {entry.purpose}"]
        for published in entry.published:
            lines.append(f"  {published.file}")
            lines += _wrapped("    from     ", published.where) + _wrapped("    licence  ", published.licence)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * len(label)
    return textwrap.wrap(
        text, 100, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    footer = "where the files come from, and their licences as far as they are known here:\n\n" + catalogue_text()
    parser = argparse.ArgumentParser("python -m convert", description=DESCRIPTION, epilog=footer, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    whole = commands.add_parser(
        "controltalk", help="a folder with ControlTalk's checkpoints -> renderer/ hubert/ audio2exp/"
    )
    whole.add_argument("source", type=pathlib.Path, help="the folder; files are recognised by what they hold")
    for role, command in ROLES.items():
        whole.add_argument(f"--{role}", type=pathlib.Path, metavar="PATH", help=f"take the {role} from this path")
        for flag in entry_named(command).flags:
            if flag.name != "channels":  # the HuBERT that is found says it
                _add_flag(whole, flag)
    _common(whole, "the talking-head folder to write")
    whole.set_defaults(run=_run_folder)

    for entry in ENTRIES:
        command = commands.add_parser(entry.command, help=f"{entry.title}: {entry.purpose}")
        command.add_argument("source", type=pathlib.Path, help=" or ".join(p.file for p in entry.published))
        for flag in entry.flags:
            _add_flag(command, flag)
        _common(command, "the bundle (a folder) to write")
        command.set_defaults(run=_run_one, entry=entry)

    back = commands.add_parser("export", help="a bundle -> lipControlNet.pt or a renderer's .pth.tar, for PyTorch")
    back.add_argument("source", type=pathlib.Path, help="a bundle of audio2exp or facevid2vid")
    back.add_argument("--output", type=pathlib.Path, required=True, help="the file to write")
    _overwrite_and_debug(back)
    back.set_defaults(run=_run_export)

    packing = commands.add_parser("pack", help="a talking head's bundles -> one file each, in reduced precision")
    packing.add_argument("source", type=pathlib.Path, help="a folder of bundles")
    packing.add_argument("--output", type=pathlib.Path, required=True, help="the folder to write")
    packing.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="default: %(default)s")
    _overwrite_and_debug(packing)
    packing.set_defaults(run=_run_pack)

    listing = commands.add_parser("list", help="where every published file is to be had, and its licence")
    listing.set_defaults(run=lambda options: print(catalogue_text()), debug=False)
    return parser


def _common(command: argparse.ArgumentParser, output: str) -> None:
    command.add_argument("--output", type=pathlib.Path, required=True, help=output)
    command.add_argument("--check", action="store_true", help="open the result again and compare it with the source")
    command.add_argument("--licence", help="licence note for the manifest, instead of the one known here")
    _overwrite_and_debug(command)


def _overwrite_and_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace an earlier result")
    command.add_argument("--debug", action="store_true", help="show where in the program an error arose")


def _add_flag(command: argparse.ArgumentParser, flag: Flag) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "count": {"type": _count, "metavar": "N"},
        "path": {"type": pathlib.Path, "metavar": "FILE"},
        "yesno": {"type": _yes_or_no, "metavar": "{yes,no}"},
    }
    command.add_argument(f"--{flag.name}", help=flag.help, **kinds[flag.kind])


def _count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return text == "yes"


def _quiet() -> None:
    """Conversion needs no accelerator, and Orbax's notes about sharding say nothing here."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    logging.getLogger("absl").setLevel(logging.ERROR)


def _run_one(options: argparse.Namespace) -> None:
    from ctjax.weights import replacing

    with replacing(options.output, overwrite=options.overwrite) as aside:
        _, text = _convert_into(options.entry, options.source, aside, vars(options))
    print(f"{text}\nwrote {options.output}")


def _run_folder(options: argparse.Namespace) -> None:
    from ctjax.weights import replacing

    texts, configs, settings = [], {}, vars(options)
    with replacing(options.output, overwrite=options.overwrite) as aside:
        found = scan(options.source, {role: settings[role] for role in ROLES})
        for role, command in ROLES.items():
            if role == "audio2exp":  # its window does not say how wide a feature is, but HuBERT does
                settings = {**settings, "channels": configs["hubert"].hidden_size}
            configs[role], text = _convert_into(entry_named(command), found.chosen[role], aside / role, settings)
            texts.append(text)
        fit_together(configs)
    print("\n".join(texts))
    for path, reason in found.left.items():
        print(f"not used: {path}: {reason}")
    print(f"wrote {options.output}: {', '.join(found.chosen)}")


def _convert_into(
    entry: Entry, source: pathlib.Path, output: pathlib.Path, settings: Mapping[str, Any]
) -> tuple[Any, str]:
    """Converts `source` into `output`; returns the network's config and the summary."""
    from convert.bundle import convert, write
    from convert.check import check
    from convert.plan import table

    converted = convert(entry, source, settings)
    write(converted, output, licence=settings["licence"], overwrite=True)
    lines = [table(f"{entry.title}: {source}", converted.outcome, converted.plan)]
    if settings["check"]:
        lines += check(converted, output)
    return converted.plan.config, "\n".join(lines)


def _run_export(options: argparse.Namespace) -> None:
    from convert.export import export

    print(f"wrote {export(options.source, options.output, overwrite=options.overwrite)}")


def _run_pack(options: argparse.Namespace) -> None:
    text = pack(options.source, options.output, precision=options.precision, overwrite=options.overwrite)
    print(f"wrote {text}")


if __name__ == "__main__":
    sys.exit(main())
