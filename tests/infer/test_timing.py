"""Work that runs ahead in a thread of its own."""

import threading

import pytest

from ctjax.infer.timing import prefetched


def test_items_come_in_order_and_errors_where_they_belong():
    def items():
        yield from range(5)
        raise KeyError("after five")

    ahead = prefetched(items(), 2)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(KeyError, match="after five"):
        next(ahead)


def test_closing_does_not_wait_for_the_item_that_is_being_made():
    """Ctrl-C during an hour's speech features must not wait for them."""
    release, ended = threading.Event(), threading.Event()

    def items():
        try:
            yield 1
            release.wait()
            yield 2
        finally:
            ended.set()

    ahead = prefetched(items(), 1)
    assert next(ahead) == 1
    ahead.close()
    release.set()
    assert ended.wait(10), "the source is closed in the end"
