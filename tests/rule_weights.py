"""Deterministic rule-made weights (numpy only).

Every state-dict entry of a golden record is a pure function of its name and
shape, so no weight is stored.  Usage:

    import json, rule_weights
    man = json.load(open("facevid2vid_small.manifest.json"))
    parts = rule_weights.build(man)              # {"generator": {key: array}, ...}
    w = parts["generator"]["first.conv.weight"]  # float32, PyTorch layout
    rule_weights.check(man, parts)               # compares against the manifest's probes

The draw: standard normals, float32, C order, from
    numpy.random.Generator(numpy.random.PCG64(zlib.crc32(f"{model}/{key}".encode())))
`model` is the part's "rule_model" in the manifest, `key` the state-dict key as
the reference writes it.  Then, by the last component of the key and the rank:

    num_batches_tracked            0 (int64, shape ())
    running_mean                   0.1 * n
    running_var                    1 + 0.1 * |n|
    rank 1 "weight"                1 + 0.1 * n             (norm scale)
    rank 1 "bias"                  0.05 * n
    "jacobian.bias"                flattened 3x3 identities + 0.05 * n
    rank >= 2 "weight", "weight_orig", weight-norm "weight_v"
                                   n * float32(g / sqrt(fan_in)), fan_in = prod(shape[1:])
    weight-norm "weight_g"         float32(g) * (1 + 0.1 * n)
    spectral-norm "weight_u/v"     see spectral_uv()
    "down.weight" (KPDetector)     the module's own Gaussian, see antialias_kernel()
    any other rank 0/1 entry       0.05 * n

g: first pattern (fnmatch, against the key) that matches in the part's "gains",
else the part's "default_gain".
"""

import fnmatch
import math
import zlib

import numpy as np

F32 = np.float32
POWER_ITERATIONS = 2


def normals(model, key, shape):
    """The rule's raw draw for one entry: float32 standard normals, C order."""
    seed = zlib.crc32(f"{model}/{key}".encode("utf-8"))
    gen = np.random.Generator(np.random.PCG64(seed))
    return np.asarray(gen.standard_normal(size=tuple(shape), dtype=np.float32), dtype=np.float32)


def gain_for(key, gains, default_gain):
    for pattern, g in gains:
        if fnmatch.fnmatchcase(key, pattern):
            return float(g)
    return float(default_gain)


def antialias_kernel(channels, scale):
    """Depthwise Gaussian low-pass of shape (channels, 1, k, k) for a downsampling
    `scale` < 1: sigma = (1/scale - 1)/2, k = 2*round(4*sigma) + 1 (Python's
    banker's rounding), unit sum."""
    sigma = (1.0 / scale - 1.0) / 2.0
    k = 2 * round(sigma * 4) + 1
    x = np.arange(k, dtype=np.float64) - (k - 1) / 2.0
    if sigma == 0:
        one = np.ones(1)
    else:
        one = np.exp(-(x**2) / (2.0 * sigma**2))
    ker = np.outer(one, one)
    ker = (ker / ker.sum()).astype(np.float32)
    return np.repeat(ker[None, None], channels, axis=0)


def spectral_uv(model, key_u, w_orig):
    """(u, v) of a spectrally normalised weight, matrix W = w_orig.reshape(out, -1).
    u starts as the unit-normalised rule draw of the `weight_u` key; then
    POWER_ITERATIONS times: v = norm(W^T u), u = norm(W v); float64, cast to
    float32 at the end.  (The `weight_v` key itself is never drawn.)  After so
    few steps u, v are NOT converged: sigma = u^T W v is clearly below the true
    largest singular value, so code that re-estimates sigma gives other results
    than PyTorch's eval mode, which uses the stored u and v as they are."""
    w = np.asarray(w_orig, dtype=np.float64).reshape(w_orig.shape[0], -1)
    u = normals(model, key_u, (w.shape[0],)).astype(np.float64)
    u /= max(np.linalg.norm(u), 1e-12)
    v = None
    for _ in range(POWER_ITERATIONS):
        v = w.T @ u
        v /= max(np.linalg.norm(v), 1e-12)
        u = w @ v
        u /= max(np.linalg.norm(u), 1e-12)
    return u.astype(np.float32), v.astype(np.float32)


def entry(model, key, shape, gains=(), default_gain=math.sqrt(2.0), antialias_scale=None):
    """One state-dict entry, spectral-norm u/v excepted (they need the weight)."""
    shape = tuple(int(s) for s in shape)
    last = key.rsplit(".", 1)[-1]
    rank = len(shape)
    if last == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if key == "down.weight" and antialias_scale is not None:
        ker = antialias_kernel(shape[0], antialias_scale)
        assert ker.shape == shape, (ker.shape, shape)
        return ker
    n = normals(model, key, shape)
    if last == "running_mean":
        return F32(0.1) * n
    if last == "running_var":
        return F32(1.0) + F32(0.1) * np.abs(n)
    if last == "weight_g":
        return F32(gain_for(key, gains, default_gain)) * (F32(1.0) + F32(0.1) * n)
    if rank >= 2 and last in ("weight", "weight_orig", "weight_v"):
        fan_in = int(np.prod(shape[1:]))
        return n * F32(gain_for(key, gains, default_gain) / math.sqrt(fan_in))
    if rank == 1 and last == "weight":
        return F32(1.0) + F32(0.1) * n
    if key.endswith("jacobian.bias"):
        eye = np.tile(np.eye(3, dtype=np.float32).reshape(-1), shape[0] // 9)
        return eye + F32(0.05) * n
    return F32(0.05) * n


def build_part(part):
    """{key: array} for one manifest part, in state-dict order."""
    model = part["rule_model"]
    gains = part.get("gains", [])
    default_gain = part.get("default_gain", math.sqrt(2.0))
    scale = part.get("antialias_scale")
    keys = [e["key"] for e in part["entries"]]
    out = {}
    for e in part["entries"]:
        key = e["key"]
        if len(e["shape"]) == 1 and key.rsplit(".", 1)[-1] in ("weight_u", "weight_v"):
            out[key] = None
            continue
        out[key] = entry(model, key, e["shape"], gains, default_gain, scale)
    for key in keys:
        if out[key] is None and key.endswith("weight_u"):
            stem = key[: -len("weight_u")]
            u, v = spectral_uv(model, key, out[stem + "weight_orig"])
            out[key], out[stem + "weight_v"] = u, v
    for e in part["entries"]:
        assert list(out[e["key"]].shape) == list(e["shape"]), e
        assert str(out[e["key"]].dtype) == e["dtype"], e
    return out


def build(manifest):
    """{part name: {key: array}} for a whole manifest."""
    return {name: build_part(part) for name, part in manifest["weights"].items()}


def probe(array):
    """[first value, last value, float64 sum] of an entry: lets a port confirm that
    it rebuilt the same weights."""
    flat = np.asarray(array).reshape(-1)
    return [float(flat[0]), float(flat[-1]), float(flat.astype(np.float64).sum())]


def check(manifest, parts, rtol=1e-5):
    """Raise if any entry differs from the manifest's probes."""
    for name, part in manifest["weights"].items():
        for e in part["entries"]:
            if "probe" not in e:
                continue
            got, want = probe(parts[name][e["key"]]), e["probe"]
            size = max(1.0, float(np.prod(e["shape"])))
            tol = [rtol * max(1.0, abs(want[0])), rtol * max(1.0, abs(want[1])), rtol * max(1.0, math.sqrt(size))]
            for g, w, t in zip(got, want, tol):
                assert abs(g - w) <= t, (name, e["key"], got, want)
