"""Shared set-up: CPU devices, a persistent compilation cache, parsed absl flags (Grain and Orbax want them)."""

import os
import pathlib
import warnings

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "ctjax" / "xla-tests"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def face_finder():
    """The face networks (fetched by `make install`), for the tests that need them; the others run on a stand-in."""
    from ctjax.faces.find import FaceFinder
    from ctjax.faces.models import FaceModelError

    try:
        return FaceFinder()
    except FaceModelError as error:
        warnings.warn(f"FACE DETECTION IS NOT TESTED: {error}", stacklevel=1)
        pytest.skip(f"FACE DETECTION IS NOT TESTED: {error}")
