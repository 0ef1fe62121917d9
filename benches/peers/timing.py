"""Timing candidates in turns: what benches/src/timing.rs does, for the peers."""

import gc
import time

SAMPLE = 200e-6


def seconds_of(run, calls):
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def calls_in_a_sample(run):
    run()
    calls = 1
    while (took := seconds_of(run, calls)) < SAMPLE / 2 and calls < 1 << 24:
        calls *= 2
    return max(1, -int(-SAMPLE * calls // took))


def interleaved(budget, candidates):
    """Times `(name, function)` pairs in turns for about `budget` seconds in all.

    A sample is as many calls as take 200 microseconds, at least one. The results are
    nanoseconds per call.
    """
    calls = [calls_in_a_sample(run) for _, run in candidates]
    samples = [[] for _ in candidates]
    gc.collect()
    gc.disable()
    end = time.perf_counter() + budget
    while time.perf_counter() < end or any(len(s) < 5 for s in samples):
        for (_, run), n, times in zip(candidates, calls, samples):
            cpu = time.process_time_ns()
            wall = seconds_of(run, n) * 1e9
            times.append((wall / n, (time.process_time_ns() - cpu) / n))
    gc.enable()
    return [stats(name, times) for (name, _), times in zip(candidates, samples)]


def stats(name, times):
    wall = sorted(w for w, _ in times)
    return {
        "name": name,
        "min": wall[0],
        "median": wall[(len(wall) - 1) // 2],
        # The mean: what other threads did is counted long after a sample.
        "cpu": sum(c for _, c in times) / len(times),
        "cpu_min": min(c for _, c in times),
        "samples": len(times),
    }
