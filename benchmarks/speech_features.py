"""Time of the speech network by the clip's length: `python benchmarks/speech_features.py --seconds 10 60 600`.

The demo's speech network unless `--hubert` gives another bundle. The sound is noise: what is in it makes no difference.
Each length runs twice, and the second run counts, without compiling.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

from ctjax import cli, weights
from ctjax.config import from_mapping
from ctjax.features.extract import SAMPLE_RATE_HZ, SpeechFeatures, measure
from ctjax.features.hubert_config import HubertConfig
from ctjax.infer import demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600])
    parser.add_argument("--hubert", default=str(demo.bundle() / "hubert"), help="bundle; the demo's if not given")
    parser.add_argument("--dtype", default="float32")
    chosen = parser.parse_args()
    cli.enable_compilation_cache()
    opened = weights.open_bundle(chosen.hubert, network="hubert")
    features = SpeechFeatures(from_mapping(HubertConfig, opened.config), opened.params, dtype=chosen.dtype)
    print("| sound, s | features, s | times real time |\n|---|---|---|")
    for seconds in chosen.seconds:
        samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)
        for _ in range(2):
            begin = time.perf_counter()
            for _ in features.stream(lambda some=samples: [some], measure(lambda some=samples: [some])):
                pass
            took = time.perf_counter() - begin
        print(f"| {seconds:g} | {took:.2f} | {seconds / took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
