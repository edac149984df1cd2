"""Times the renderer against its PyTorch twin in one run, interleaved: `python benchmarks/renderer.py`.

Prints a Markdown table of medians (wall and processor milliseconds per frame) and of the ratios to PyTorch, pair by
pair; of several `--size`, `--batch` and `--dtype` all programs are compiled side by side and then timed one case after
the other. Weights are drawn by rule; speed does not depend on them. On a GPU PyTorch picks its convolutions by trial;
for `--dtype bfloat16` it runs in float16 autocast with channels last; in float32 the convolutions of both sides are
TF32, their default.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
    parser.add_argument("--size", type=int, nargs="+", default=[256])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+", default=["float32"])
    parser.add_argument("--formulation", choices=sorted(FORMULATIONS), default="default")
    parser.add_argument("--plain", action="store_true", help="time the plain (trainable) renderer too")
    parser.add_argument("--compile", action="store_true", help="time torch.compile of the twin too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3600.0, help="start no further round of a case after so many")
    return parser.parse_args()


def jax_sides(config, params, dtype: str, chosen) -> dict[str, tuple[FastRenderer | Renderer, object]]:
    """Renderers and their parameters on the device, by name."""
    fast = FastRenderer(config, FORMULATIONS[chosen.formulation](dtype=dtype))
    sides = {"ctjax": (fast, jax.device_put(fast.prepare(params)))}
    if chosen.plain:
        sides["ctjax, plain"] = (Renderer(config), jax.device_put(params))
    return sides


def jax_runs(sides, image: np.ndarray, keypoints: np.ndarray) -> dict[str, Run]:
    """Compiled functions by name; compile times are printed."""
    runs: dict[str, Run] = {}
    for name, (renderer, tree) in sides.items():
        source, driving = jax.device_put((keypoints[0], keypoints[1]))
        picture = jax.device_put(image)

        def video(tree, picture, source, driving, renderer=renderer):
            return renderer.drive(tree, renderer.encode_source(tree, picture, source), driving)

        still = jax.jit(renderer.encode_source)(tree, picture[:1], source[:1])
        whole = jax.jit(video).lower(tree, picture, source, driving).compile()
        drive = jax.jit(renderer.drive).lower(tree, still, driving).compile()
        runs[f"{name}, video source"] = lambda f=whole, a=(tree, picture, source, driving): jax.block_until_ready(f(*a))
        runs[f"{name}, picture source"] = lambda f=drive, a=(tree, still, driving): jax.block_until_ready(f(*a))
    return runs


def torch_model(config, state, dtype: str) -> torch.nn.Module:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = TorchGenerator(config.generator).eval()
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    if device == "cuda" and dtype == "bfloat16":
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d):
                flat = isinstance(layer, torch.nn.Conv2d)
                layer.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)
    return model.to(device)


def torch_runs(model: torch.nn.Module, image: np.ndarray, keypoints: np.ndarray, half: bool, chosen) -> dict[str, Run]:
    device = next(model.parameters()).device.type
    tensors = [torch.from_numpy(np.moveaxis(image, -1, 1).copy()), *(torch.from_numpy(k.copy()) for k in keypoints)]
    tensors = [t.to(device) for t in tensors]
    half = half and device == "cuda"
    if half:
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)

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


def measure(runs: dict[str, Run], rounds: int, limit_s: float) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of every round; the contestants take turns. At least three rounds."""
    for run in runs.values():
        run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    begin = time.perf_counter()
    for i in range(rounds):
        if i >= 3 and time.perf_counter() - begin > limit_s:
            break
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return seconds


def table(seconds: dict[str, list[tuple[float, float]]], batch: int) -> None:
    print(f"{len(seconds['PyTorch'])} rounds\n")
    print("| | wall ms/frame | processor ms/frame | faster than PyTorch, wall | processor |\n|---|---|---|---|---|")
    for name, rounds in seconds.items():
        wall, processor = (1e3 * statistics.median(column) / batch for column in zip(*rounds, strict=True))
        ratios = [
            statistics.median(base[i] / max(own[i], 1e-9) for base, own in zip(seconds["PyTorch"], rounds, strict=True))
            for i in range(2)
        ]
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


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
    many = max(chosen.batch)
    images = {size: rng.uniform(0, 1, (many, size, size, 3)).astype(np.float32) for size in chosen.size}
    keypoints = rng.uniform(-0.6, 0.6, (2, many, 15, 3)).astype(np.float32)
    models = {dtype: torch_model(config, case.weights["generator"], dtype) for dtype in chosen.dtype}
    sides = {dtype: jax_sides(config, params, dtype, chosen) for dtype in chosen.dtype}
    cases = list(itertools.product(chosen.dtype, chosen.size, chosen.batch))
    begin = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        compiled = [pool.submit(jax_runs, sides[d], images[s][:b], keypoints[:, :b]) for d, s, b in cases]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(f"{os.cpu_count()} cores, {device}; jax {jax.__version__}, torch {torch.__version__}; {chosen.formulation};")
    print(f"compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    for (dtype, size, batch), future in zip(cases, compiled, strict=True):
        print(f"\n{dtype}, {size} px, batch {batch}; ", end="")
        try:
            own = future.result()
            other = torch_runs(models[dtype], images[size][:batch], keypoints[:, :batch], dtype == "bfloat16", chosen)
            time_case(other | own, batch, chosen)
        except (jax.errors.JaxRuntimeError, torch.cuda.OutOfMemoryError) as error:
            print(str(error).splitlines()[0], flush=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def time_case(runs: dict[str, Run], batch: int, chosen) -> None:
    picture = np.moveaxis(np.asarray(runs["ctjax, video source"]()), -1, 1)
    worst = np.abs(picture - runs["PyTorch"]().float().cpu().numpy()).max()
    print(f"largest difference of the images: {worst:.2g}; ", end="")
    table(measure(runs, chosen.rounds, chosen.seconds), batch)


if __name__ == "__main__":
    main()
