"""Cutting parameter trees apart and joining them."""

import pytest

from ctjax.train import partition
from ctjax.types import UserError

TREE = {"a": {"kernel": 1, "bias": 2}, "b": {0: {"kernel": 3}, 1: {"kernel": 4}}}


def test_select_and_merge_undo_each_other():
    kernels = partition.select(TREE, lambda path: path[-1] == "kernel")
    others = partition.select(TREE, lambda path: path[-1] != "kernel")
    assert kernels == {"a": {"kernel": 1}, "b": {0: {"kernel": 3}, 1: {"kernel": 4}}}
    assert others == {"a": {"bias": 2}}
    assert partition.merge(kernels, others) == TREE
    with pytest.raises(ValueError, match="kernel is in two"):
        partition.merge(TREE, kernels)


def test_prefixes_name_whole_components():
    paths = [path for path, _ in partition.leaves(TREE)]
    chosen = partition.under(("b.0", "a.bias"), paths)
    assert [path for path in paths if chosen(path)] == [("a", "bias"), ("b", 0, "kernel")]
    assert not any(map(partition.under((), paths), paths))


@pytest.mark.parametrize("prefix, there", [("c", "a, b"), ("b.2", "b.0, b.1"), ("a.ker", "a.kernel, a.bias")])
def test_an_unknown_prefix_is_answered_with_what_there_is(prefix, there):
    with pytest.raises(UserError, match=f"called {prefix}: it has {there}"):
        partition.under((prefix,), [path for path, _ in partition.leaves(TREE)])
