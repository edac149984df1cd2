"""The renderer against the reference's recorded runs: every output, inner traces and gradients included."""

import numpy as np
import pytest
import renderer_replay
from parity import Record

VARIANTS = ("plain", "gmid2", "noocc", "scale1", "jacobian")


def test_small_network():
    case = renderer_replay.case("facevid2vid_small")
    results = renderer_replay.everything(case)
    renderer_replay.check_all(case.record, results)
    renderer_replay.check_gradients(case)

    # The unofficial repository's code was run on the same inputs and weights.
    unofficial = Record("facevid2vid_small_unofficial")
    for name, array in unofficial.inputs.items():
        np.testing.assert_array_equal(array, case.record.inputs[name])
    for part, weights in unofficial.manifest["weights"].items():
        assert weights["entries"] == case.record.manifest["weights"][part]["entries"]
    renderer_replay.check_all(unofficial, results)


@pytest.mark.parametrize("variant", VARIANTS)
def test_small_variants(variant):
    case = renderer_replay.case(f"facevid2vid_small_{variant}")
    renderer_replay.check_all(case.record, renderer_replay.everything(case))
    if "grad_loss" in case.record.outputs:
        renderer_replay.check_gradients(case)


@pytest.mark.full
@pytest.mark.parametrize("pixels", [256, 512])
def test_full_size(pixels):
    case = renderer_replay.case(f"facevid2vid_{pixels}")
    renderer_replay.check_all(case.record, renderer_replay.everything(case))
