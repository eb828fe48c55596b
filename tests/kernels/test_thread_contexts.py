"""`num_threads`: whom a context holds for, and what is left of it when it ends."""

import asyncio
import gc
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import nnet
from nnet import _runtime, dispatch

pytestmark = pytest.mark.skipif(not _runtime.THREADS, reason="built without threads")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """The process's number is 2, and as it was before after each test."""
    monkeypatch.setattr(dispatch, "_threads", 2)
    monkeypatch.setattr(dispatch, "_threads_why", "test")
    yield
    assert dispatch._contexts.get() == ()


def in_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def enter(n_threads):
    context = nnet.num_threads(n_threads)
    context.__enter__()
    return context


def leave(context):
    context.__exit__(None, None, None)


def test_contexts_of_one_thread_end_in_any_order():
    a, b, c = enter(3), enter(4), enter(5)
    leave(b)
    assert nnet.get_num_threads() == 5
    leave(c)
    assert nnet.get_num_threads() == 3
    leave(a)
    assert nnet.get_num_threads() == 2


def test_contexts_of_two_threads_overlap():
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    seen = {}

    def first():
        with nnet.num_threads(3):
            first_in.set()
            assert second_in.wait(10)
            seen["first"] = nnet.get_num_threads()
        seen["first, after"] = nnet.get_num_threads()
        first_out.set()

    def second():
        assert first_in.wait(10)
        seen["second, before"] = nnet.get_num_threads()
        with nnet.num_threads(4):
            second_in.set()
            assert first_out.wait(10)
            seen["second"] = nnet.get_num_threads()
        seen["second, after"] = nnet.get_num_threads()

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"first": 3, "first, after": 2, "second, before": 2, "second": 4,
                    "second, after": 2}  # fmt: skip
    assert nnet.get_num_threads() == 2


def test_context_holds_for_its_thread_only():
    with nnet.num_threads(3):
        assert in_thread(nnet.get_num_threads) == 2
        assert in_thread(dispatch.call_threads) == 2


def test_set_num_threads_is_for_the_process():
    with nnet.num_threads(3):
        nnet.set_num_threads(4)
        assert nnet.get_num_threads() == 3
        assert in_thread(nnet.get_num_threads) == 4
    assert nnet.get_num_threads() == 4
    in_thread(nnet.set_num_threads, 5)
    assert nnet.get_num_threads() == 5


def test_context_may_end_in_another_thread():
    context = enter(3)
    in_thread(leave, context)
    assert nnet.get_num_threads() == 2
    context = in_thread(enter, 4)
    assert nnet.get_num_threads() == 2
    leave(context)
    assert nnet.get_num_threads() == 2
    with nnet.num_threads(5):  # drops what is left of the first
        pass


def test_tasks_overlap():
    async def task(n_threads, pause):
        seen = [nnet.get_num_threads()]
        with nnet.num_threads(n_threads):
            await asyncio.sleep(pause)
            seen.append(nnet.get_num_threads())
        await asyncio.sleep(pause)
        return seen + [nnet.get_num_threads()]

    async def both():
        return await asyncio.gather(task(3, 0.01), task(4, 0.015))

    assert asyncio.run(both()) == [[2, 3, 2], [2, 4, 2]]


def test_tasks_inherit_a_context_while_it_lasts():
    async def main():
        ended = asyncio.Event()

        async def child():
            before = nnet.get_num_threads()
            await ended.wait()
            return before, nnet.get_num_threads()

        with nnet.num_threads(3):
            task = asyncio.create_task(child())
            in_a_thread = await asyncio.to_thread(nnet.get_num_threads)
            await asyncio.sleep(0)
        ended.set()
        return in_a_thread, await task

    assert asyncio.run(main()) == (3, (3, 2))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_end_it(error):
    with pytest.raises(error), nnet.num_threads(3):
        raise error
    assert nnet.get_num_threads() == 2


def test_generators_overlap():
    def steps(n_threads):
        with nnet.num_threads(n_threads):
            yield nnet.get_num_threads()
            yield

    a, b = steps(3), steps(4)
    assert (next(a), next(b)) == (3, 4)
    a.close()
    assert nnet.get_num_threads() == 4
    b.close()
    assert nnet.get_num_threads() == 2


def test_forgotten_context_ends():
    """As after an interrupt before `with` has begun."""
    nnet.num_threads(3).__enter__()
    gc.collect()
    assert nnet.get_num_threads() == 2


def test_decorator():
    @nnet.num_threads(3)
    def number(depth=1):
        return nnet.get_num_threads() if depth == 0 else number(depth - 1)

    assert number() == number() == 3
    assert nnet.get_num_threads() == 2


@pytest.mark.parametrize("value, error", [(0, ValueError), (2.0, TypeError)])
def test_bad_counts(value, error):
    with pytest.raises(error, match="n_threads is .*, expected"), nnet.num_threads(value):
        pass
    assert nnet.get_num_threads() == 2


def test_report_says_who_asked():
    def row():
        report = io.StringIO()
        nnet.show_config(file=report)
        return next(line for line in report.getvalue().splitlines() if "threads:" in line)

    assert row().endswith("2 (test)")
    with nnet.num_threads(1):
        assert row().endswith("1 (num_threads)")
    nnet.set_num_threads(1)
    assert row().endswith("1 (set_num_threads)")
