"""A thousand random convolutions, new ones in every run, on every target."""

from convolutions import any_case, check_exact
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=1000, deadline=None)
@given(case=any_case(max_feats=49, max_filter=9), seed=st.integers(0, 9))
def test_any_geometry(kernels, dtype, case, seed):
    check_exact(kernels, case, dtype, seed)
