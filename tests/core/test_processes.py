# SPDX-License-Identifier: Apache-2.0
"""Engines in processes that fork, run out of threads, or exit while a thread computes.

Each case runs in a process of its own: what is tested for is a hang or an abort.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

PREPARE = """
import faulthandler, os, sys, threading, time
import numpy as np
from scn_fx import Engine
from tests.gpu.networks import GRID, small_network
from tests.oracle.frames import random_sites

faulthandler.enable()
DATA = small_network()

def frame(count, seed=1):
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, count, GRID, 2)
    return rng.normal(size=(len(sites), 2)).astype(np.float16), sites

def same(a, b):
    return a.tobytes() == b.tobytes()

def in_child(work):
    '''Exit status of a child process that does `work`, and -1 for one that hangs.'''
    child = os.fork()
    if child == 0:
        try:
            status = 0 if work() else 3
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 4
        os._exit(status)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1
"""


def _run(program: str, timeout: float = 120) -> str:
    """Output of a Python program that must end by itself, without an error."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "terminate called" not in done.stderr and "Fatal Python error" not in done.stderr, done.stderr
    return done.stdout


def test_the_child_of_a_fork_uses_an_inherited_engine() -> None:
    _run("""
        small, large = frame(30), frame(1300, 2)
        for threads in (1, 2, 3):
            engine = Engine(DATA, threads=threads)
            expected = [engine(*f, batch_size=2) for f in (small, large)]
            def work():
                results = [engine(*f, batch_size=2) for f in (small, large)]
                assert engine.threads == threads and engine.describe()
                grandchild = in_child(lambda: same(engine(*large, batch_size=2), expected[1]))
                return all(map(same, results, expected)) and grandchild == 0
            assert in_child(work) == 0, threads
            assert same(engine(*large, batch_size=2), expected[1])
    """)


def test_the_child_of_a_fork_drops_or_ignores_an_inherited_engine() -> None:
    _run("""
        engine = Engine(DATA, threads=3)
        engine(*frame(1300), batch_size=2)
        def drop():
            global engine
            del engine
            return True
        assert in_child(drop) == 0
        assert in_child(lambda: True) == 0
        child = os.fork()
        if child == 0:
            sys.exit(0)  # with all that an interpreter does at its end
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        assert done and status == 0, (done, status)
    """)


def test_a_fork_in_the_middle_of_a_frame() -> None:
    """The child inherits locks that nobody will open, and memory half way through a change."""
    _run("""
        engine = Engine(DATA, threads=3)
        frames = [frame(count, count) for count in (1200, 20, 1300)]
        expected = [engine(*f, batch_size=2) for f in frames]
        stop = False
        def busy():
            at = 0
            while not stop:
                engine(*frames[at % 3], batch_size=2)
                at += 1
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for round in range(40):
                def work():
                    return all(same(engine(*f, batch_size=2), e) for f, e in zip(frames, expected))
                status = in_child(work)
                assert status == 0, (round, status)
        finally:
            stop = True
            for thread in threads:
                thread.join()
        assert same(engine(*frames[0], batch_size=2), expected[0])
    """)


POOL = """
import multiprocessing

engine = Engine(DATA, threads=2)
EXPECTED = engine(*frame(1200), batch_size=2)

def task(number):
    other = Engine(DATA, threads=2)
    return all(same(e(*frame(1200), batch_size=2), EXPECTED) for e in (engine, other))

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert all(pool.map(task, range(12)))
"""


def test_multiprocessing_with_fork() -> None:
    _run(POOL)


def test_the_interpreter_exits_while_a_daemon_thread_computes() -> None:
    """Before Python 3.14, a thread that asks for the interpreter's lock then is unwound, which must not meet
    a function that may not throw."""
    for delay in (0.0, 0.01, 0.05, 0.2):
        _run(f"""
            engine = Engine(DATA, threads=2)
            big = frame(1300)
            started = threading.Event()
            def busy():
                while True:
                    engine(*big, batch_size=2)
                    started.set()
            for _ in range(3):
                threading.Thread(target=busy, daemon=True).start()
            started.wait()
            time.sleep({delay})
        """)


def test_a_limit_of_threads_is_met_by_an_error_or_fewer_threads() -> None:
    _run("""
        import resource
        from scn_fx.errors import ArgumentError
        inherited = Engine(DATA, threads=4)
        expected = inherited(*frame(1300), batch_size=2)
        def work():
            # stacks of threads that no longer fit
            resource.setrlimit(resource.RLIMIT_STACK, (1 << 26, 1 << 26))
            used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27), used + (1 << 27)))
            try:
                Engine(DATA, threads=64)
                return False
            except (ArgumentError, MemoryError) as error:
                assert "threads" in str(error) or isinstance(error, MemoryError), error
            # the engine of before the fork goes on with those that it gets
            return same(inherited(*frame(1300), batch_size=2), expected)
        assert in_child(work) == 0
    """)


def test_buffer_sizes_are_asked_for_while_frames_run() -> None:
    _run("""
        engine = Engine(DATA, threads=2)
        stop = False
        def busy():
            while not stop:
                engine(*frame(1200), batch_size=2)
                engine(*frame(10), batch_size=2)
        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        for _ in range(300):
            assert engine.describe()["buffer_bytes"]["activations"] >= 0
        stop = True
        thread.join()
    """)
