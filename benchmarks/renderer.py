"""Times the renderer against its PyTorch twin in one run, interleaved: `python benchmarks/renderer.py`.

Prints a Markdown table of medians (wall and processor seconds per frame) and of the ratios to PyTorch, pair by pair.
Weights are drawn by rule; speed does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax
import numpy as np
import torch
from parity import record
from torch_twin import TorchGenerator

from convert import facevid2vid, rules
from ctjax.render.fast.formulation import Formulation, default_formulation
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.renderer import Renderer, config_from_reference

FORMULATIONS = {
    "default": default_formulation,
    "direct": lambda dtype: Formulation(dtype=dtype),
    "taps": lambda dtype: Formulation(volumes="depth_taps", mask="depth_taps", frames="one_by_one", dtype=dtype),
    "winograd2": lambda dtype: Formulation("winograd2", "winograd2", "dft", "one_by_one", dtype),
    "winograd4": lambda dtype: Formulation("winograd4", "winograd4", "dft", "one_by_one", dtype),
}
Run = Callable[[], object]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--formulation", choices=sorted(FORMULATIONS), default="default")
    parser.add_argument("--plain", action="store_true", help="time the plain (trainable) renderer too")
    parser.add_argument("--compile", action="store_true", help="time torch.compile of the twin too")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def jax_runs(config, params, image: np.ndarray, keypoints: np.ndarray, chosen) -> dict[str, Run]:
    """Compiled functions by name; compile times are printed."""
    contestants = {"ctjax": FastRenderer(config, FORMULATIONS[chosen.formulation](dtype=chosen.dtype))}
    if chosen.plain:
        contestants["ctjax, plain"] = Renderer(config)
    runs: dict[str, Run] = {}
    for name, renderer in contestants.items():
        tree = jax.device_put(renderer.prepare(params) if isinstance(renderer, FastRenderer) else params)
        source, driving = jax.device_put((keypoints[0], keypoints[1]))
        picture = jax.device_put(image)

        def video(tree, picture, source, driving, renderer=renderer):
            return renderer.drive(tree, renderer.encode_source(tree, picture, source), driving)

        still = jax.jit(renderer.encode_source)(tree, picture[:1], source[:1])
        begin = time.perf_counter()
        whole = jax.jit(video).lower(tree, picture, source, driving).compile()
        print(f"{name}: compiled in {time.perf_counter() - begin:.0f} s", flush=True)
        drive = jax.jit(renderer.drive).lower(tree, still, driving).compile()
        runs[f"{name}, video source"] = lambda f=whole, a=(tree, picture, source, driving): jax.block_until_ready(f(*a))
        runs[f"{name}, picture source"] = lambda f=drive, a=(tree, still, driving): jax.block_until_ready(f(*a))
    return runs


def torch_runs(config, state, image: np.ndarray, keypoints: np.ndarray, chosen) -> dict[str, Run]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = TorchGenerator(config.generator).eval()
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    model = model.to(device)
    tensors = [torch.from_numpy(np.moveaxis(image, -1, 1).copy()), *(torch.from_numpy(k.copy()) for k in keypoints)]
    tensors = [t.to(device) for t in tensors]
    half = device == "cuda" and chosen.dtype == "bfloat16"

    def call(function):
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=half):
            result = function(*tensors)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    runs: dict[str, Run] = {"PyTorch": lambda: call(model)}
    if chosen.compile:
        compiled = torch.compile(model)
        runs["PyTorch, torch.compile"] = lambda: call(compiled)
    return runs


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of every round; the contestants take turns."""
    for run in runs.values():
        run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return seconds


def main() -> None:
    chosen = options()
    case = record("facevid2vid_256")
    config = config_from_reference(case.config)
    abstract = Renderer(config).abstract
    params = {
        part: rules.apply(table, case.weights[part], abstract[part], name=part)[0]
        for part, table in facevid2vid.TABLES.items()
    }
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (chosen.batch, chosen.size, chosen.size, 3)).astype(np.float32)
    keypoints = rng.uniform(-0.6, 0.6, (2, chosen.batch, 15, 3)).astype(np.float32)
    torch_side = torch_runs(config, case.weights["generator"], image, keypoints, chosen)
    runs = torch_side | jax_runs(config, params, image, keypoints, chosen)
    worst = np.abs(
        np.moveaxis(np.asarray(runs["ctjax, video source"]()), -1, 1) - runs["PyTorch"]().cpu().numpy()
    ).max()
    print(f"largest difference of the images: {worst:.2g}", flush=True)
    seconds = measure(runs, chosen.rounds)
    device = f"{os.cpu_count()} x {platform.machine()} {jax.devices()[0].device_kind}"
    print(f"\n{device}; jax {jax.__version__}, torch {torch.__version__};")
    print(f"{chosen.size} px, batch {chosen.batch}, {chosen.dtype}, {chosen.formulation}, {chosen.rounds} rounds\n")
    print("| | wall s/frame | processor s/frame | faster than PyTorch, wall | processor |\n|---|---|---|---|---|")
    for name, rounds in seconds.items():
        wall, processor = (statistics.median(column) / chosen.batch for column in zip(*rounds, strict=True))
        ratios = [
            statistics.median(base[i] / max(own[i], 1e-9) for base, own in zip(seconds["PyTorch"], rounds, strict=True))
            for i in range(2)
        ]
        print(f"| {name} | {wall:.3f} | {processor:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
