"""Full-size networks and records to time the training of Audio2Exp with, before there is any weight or footage.

    python benchmarks/full_size.py runs/full
    python prepare.py --synthetic=8 --size=256 --output=runs/full/records
        --hubert=runs/full/hubert --renderer=runs/full/renderer
    python benchmarks/train_step.py --config=configs/audio2exp.py --config.records="('runs/full/records',)"
        --config.renderer=runs/full/renderer --config.vgg19=runs/full/vgg19
        --config.expert.bundle=runs/full/sync_expert --config.expert.unchecked=True

The networks are untrained; speed does not depend on that. Training hears features, not HuBERT, so that this HuBERT has
the width of the large one and a single layer.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from ctjax import weights
from ctjax.data.untrained import make_bundle
from ctjax.features import hubert
from ctjax.features.hubert import HubertConfig
from ctjax.losses import vgg19
from ctjax.losses.sync_expert import SyncExpert, SyncExpertConfig
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.render.renderer import Renderer, RendererConfig

ONE_LAYER_OF_LARGE = HubertConfig.large_build(
    hidden_size=1024,
    layers=1,
    heads=16,
    intermediate_size=4096,
    conv_channels=(512,) * 7,
    position_kernel=128,
    position_groups=16,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    make_bundle(folder / "renderer", "facevid2vid", RendererConfig(), Renderer(RendererConfig()).abstract)
    make_bundle(folder / "vgg19", "vgg19", Vgg19Config(), vgg19.network().abstract)
    speech = make_bundle(folder / "hubert", "hubert", ONE_LAYER_OF_LARGE, hubert.network(ONE_LAYER_OF_LARGE).abstract)
    heard = {"hubert": weights.fingerprint(weights.read_manifest(speech))}
    make_bundle(
        folder / "sync_expert", "sync_expert", SyncExpertConfig(), SyncExpert(SyncExpertConfig()).abstract, heard
    )


if __name__ == "__main__":
    main()
