"""The face networks for the tests that need them; everything else runs on a stand-in."""

import warnings

import pytest

from ctjax.faces.find import FaceFinder
from ctjax.faces.models import FaceModelError


@pytest.fixture(scope="session")
def face_finder():
    try:
        return FaceFinder()
    except FaceModelError as error:
        warnings.warn(f"FACE DETECTION IS NOT TESTED: {error}", stacklevel=1)
        pytest.skip(f"FACE DETECTION IS NOT TESTED: {error}")
