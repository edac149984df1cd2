"""Every network the converter knows. To register one, add an `Entry`: the command line, the documentation and the
recognition of files follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from convert import recipes
from convert.recipes import Recipe, single

UNKNOWN = "unknown: look at the page before you use or share it"


@dataclass(frozen=True)
class Published:
    """A file that its authors publish. Nothing here is downloaded; `licence` is what could be learnt of it."""

    file: str
    where: str
    licence: str


@dataclass(frozen=True)
class Flag:
    """An option of one network's command. kind: "yesno", "count" or "path"."""

    name: str
    kind: str
    help: str


@dataclass(frozen=True)
class Entry:
    """One command. network: the name in the bundle; marks: patterns that all occur among the keys of such a file."""

    command: str
    network: str
    title: str
    purpose: str
    published: tuple[Published, ...]
    recipe: Recipe
    marks: tuple[str, ...]
    flags: tuple[Flag, ...] = ()

    @property
    def licence(self) -> str:
        """The licence note that goes into a bundle's manifest."""
        return "; ".join(f"{p.file}: {p.licence}" for p in self.published)


CONTROLTALK_PAGE = "https://huggingface.co/Lavivis/ControlTalk"
CONTROLTALK_LICENCE = "the code is MIT (NetEase-Media/ControlTalk); that of the weights is not stated there"

SADTALKER_LICENCE = "the repository's: Apache-2.0 today, after an earlier one; nothing else is said of the weights"
IMAGE_SIZE = Flag("image_size", "count", "side in pixels of the pictures it was trained with (default 256)")

ENTRIES = (
    Entry(
        command="facevid2vid",
        network="facevid2vid",
        title="face-vid2vid renderer",
        purpose="draws the face; inference and training need it",
        published=(
            Published("*-checkpoint.pth.tar (ControlTalk)", CONTROLTALK_PAGE, CONTROLTALK_LICENCE),
            Published(
                "vox-256-beta (unofficial face-vid2vid)",
                "links in github.com/zhanglonghao1992/One-Shot_Free-View_Neural_Talking_Head_Synthesis",
                f"{UNKNOWN}; the repository shows none",
            ),
        ),
        recipe=recipes.renderer,
        marks=(r"(^|\.)generator\.dense_motion_network\.mask\.weight", r"(^|\.)kp_detector\.kp\.weight"),
        flags=(IMAGE_SIZE,),
    ),
    Entry(
        command="sadtalker",
        network="facevid2vid",
        title="SadTalker's renderer",
        purpose="draws the face instead of ControlTalk's renderer, at 256 or 512 px",
        published=(
            Published(
                "SadTalker_V0.0.2_256.safetensors or SadTalker_V0.0.2_512.safetensors",
                "https://github.com/OpenTalker/SadTalker/releases/tag/v0.0.2-rc",
                SADTALKER_LICENCE,
            ),
            Published(
                "facevid2vid_00189-model.pth.tar, mapping_00229-model.pth.tar, mapping_00109-model.pth.tar",
                "https://github.com/OpenTalker/SadTalker/releases",
                SADTALKER_LICENCE,
            ),
        ),
        recipe=recipes.sadtalker,
        marks=(r"(^|\.)generator\.dense_motion_network\.mask\.weight", r"(^|\.)kp_extractor\.kp\.weight"),
        flags=(
            Flag("mapping", "path", "a mapping_*.pth.tar, to convert SadTalker's mapping network with the renderer"),
            Flag("he_estimator", "path", "a facevid2vid_*.pth.tar, to take the head estimator from"),
            IMAGE_SIZE,
        ),
    ),
    Entry(
        command="hubert",
        network="hubert",
        title="HuBERT",
        purpose="turns speech into features; inference and training need it",
        published=(
            Published(
                "chinese-hubert-large (the one ControlTalk uses)",
                "https://huggingface.co/TencentGameMate/chinese-hubert-large",
                UNKNOWN,
            ),
            Published("hubert-large-ll60k", "https://huggingface.co/facebook/hubert-large-ll60k", "Apache-2.0"),
            Published(
                "fairseq's hubert_*.pt",
                "github.com/facebookresearch/fairseq, examples/hubert",
                "MIT, which fairseq extends to its pre-trained models",
            ),
        ),
        recipe=recipes.hubert,
        marks=(r"feature_extractor\.conv_layers\.0\.", r"encoder\.layers\.0\."),
        flags=(
            Flag(
                "normalize_waveform",
                "yesno",
                "bring sound to zero mean and unit variance first; asked for where the file does not say",
            ),
        ),
    ),
    Entry(
        command="audio2exp",
        network="audio2exp",
        title="Audio2Exp",
        purpose="moves the mouth with the speech; inference needs it, training starts from its audio encoder",
        published=(
            Published("lipControlNet.pt (audio encoder and output layer)", CONTROLTALK_PAGE, CONTROLTALK_LICENCE),
            Published("audio_encoder.pt (to train from the start)", CONTROLTALK_PAGE, CONTROLTALK_LICENCE),
        ),
        recipe=recipes.audio2exp,
        marks=(r"audio_encoder\.fc1\.projection\.weight",),
        flags=(Flag("channels", "count", "width of the HuBERT it was trained with (default 1024)"),),
    ),
    Entry(
        command="vgg19",
        network="vgg19",
        title="torchvision's VGG-19",
        purpose="the perceptual loss of training",
        published=(
            Published(
                "vgg19-dcbb9e9d.pth",
                "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
                "torchvision is BSD-3-Clause; of the weights it says that terms may follow from the training data "
                "(ImageNet)",
            ),
        ),
        recipe=single("convert.vgg19", "ctjax.losses.vgg19:Vgg19"),
        marks=(r"(^|\.)features\.28\.weight",),
    ),
    Entry(
        command="hopenet",
        network="hopenet",
        title="Hopenet",
        purpose="the head-pose loss of renderer training",
        published=(
            Published(
                "hopenet_*.pkl",
                "links in github.com/natanielruiz/deep-head-pose",
                "the repository is Apache-2.0; of the weights (trained on 300W-LP) it says nothing more",
            ),
        ),
        recipe=single("convert.hopenet", "ctjax.losses.hopenet:Hopenet"),
        marks=(r"^(\w+\.)?layer4\.0\.conv3\.weight", r"^(\w+\.)?fc_pitch\.weight"),
    ),
    Entry(
        command="wav2lip_syncnet",
        network="wav2lip_syncnet",
        title="Wav2Lip's sync expert",
        purpose="a lip-sync loss and metric",
        published=(
            Published(
                "lipsync_expert.pth",
                "links in github.com/Rudrabha/Wav2Lip",
                "non-commercial: personal, academic or research use only, as it is trained on LRS2",
            ),
        ),
        recipe=single("convert.syncnets", "ctjax.losses.wav2lip_syncnet:Wav2LipSyncNet", infer="infer_wav2lip_config"),
        marks=(r"(^|\.)face_encoder\.0\.conv_block\.0\.weight",),
    ),
    Entry(
        command="oxford_syncnet",
        network="oxford_syncnet",
        title="the Oxford SyncNet",
        purpose="the lip-sync metrics LSE-D and LSE-C",
        published=(
            Published(
                "syncnet_v2.model",
                "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
                "the code is MIT (github.com/joonson/syncnet_python); that of the weights is not stated there",
            ),
        ),
        recipe=single("convert.syncnets", "ctjax.losses.oxford_syncnet:OxfordSyncNet", infer="infer_oxford_config"),
        marks=(r"(^|\.)netcnnlip\.0\.weight",),
    ),
    Entry(
        command="discriminator",
        network="discriminator",
        title="face-vid2vid's discriminator",
        purpose="renderer training goes on from it",
        published=(
            Published(
                "training checkpoints of face-vid2vid (part `discriminator`)", "your own", "that of its training"
            ),
        ),
        recipe=recipes.discriminator,
        marks=(r"(^|\.)discriminator\.discs\.",),
    ),
    Entry(
        command="inception_fid",
        network="inception_fid",
        title="pytorch-fid's InceptionV3",
        purpose="the Frechet distance of evaluation",
        published=(
            Published(
                "pt_inception-2015-12-05-6726825d.pth",
                "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
                "pytorch-fid is Apache-2.0; the weights are TensorFlow's inception-2015-12-05",
            ),
        ),
        recipe=single("convert.inception", "ctjax.evaluate.inception:Inception"),
        marks=(r"(^|\.)Mixed_7c\.branch1x1\.",),
    ),
    Entry(
        command="lpips",
        network="lpips",
        title="LPIPS on VGG-16",
        purpose="a perceptual distance of evaluation",
        published=(
            Published(
                "vgg16-397923af.pth with lpips' weights/v0.1/vgg.pth, or the state dict of lpips.LPIPS(net='vgg')",
                "https://download.pytorch.org/models/vgg16-397923af.pth, github.com/richzhang/PerceptualSimilarity",
                "LPIPS is BSD-2-Clause; for the VGG-16 see vgg19",
            ),
        ),
        recipe=recipes.lpips,
        marks=(r"(^|\.)lin0\.model\.\d\.weight",),
        flags=(Flag("linear", "path", "lpips' weights/v0.1/vgg.pth, beside torchvision's VGG-16"),),
    ),
    Entry(
        command="arcface",
        network="arcface",
        title="ArcFace (arcface_torch)",
        purpose="the identity metric of evaluation",
        published=(
            Published(
                "backbone.pth",
                "links in github.com/deepinsight/insightface, recognition/arcface_torch",
                "the code is MIT; the trained models are for non-commercial research only",
            ),
        ),
        recipe=single("convert.arcface", "ctjax.evaluate.identity:ArcFace"),
        marks=(r"^(\w+\.)?layer1\.0\.prelu\.weight", r"^(\w+\.)?features\.weight"),
    ),
)


def entry_named(command: str) -> Entry:
    """The entry of a command."""
    return next(e for e in ENTRIES if e.command == command)


def identify(keys: Iterable[str]) -> list[Entry]:
    """The entries whose files hold keys like these, dotted names of all tensors."""
    keys = list(keys)
    return [e for e in ENTRIES if all(any(re.search(mark, key) for key in keys) for mark in e.marks)]
