"""tools/strain/watch.py: what counts as flat, and that a sample is what the process holds."""

import os

from tools.strain import watch


def samples(mb, descriptors=lambda i: 10):
    return [watch.Sample(10.0 * i, mb(i), descriptors(i), 5) for i in range(168)]


def test_a_leak_is_told_and_what_is_taken_only_for_a_moment_is_not():
    assert watch.grown(samples(lambda i: 1000 + 300 * (i % 9 == 0))) == []
    assert watch.grown(samples(lambda i: 1000 - 500 * (i < 30))) == []  # compiling, at first
    assert watch.grown(samples(lambda i: 1000 + i)) == ["memory grew from 1042 to 1126 MB"]
    leaking = samples(lambda i: 1000, lambda i: 10 + i // 20)
    assert watch.grown(leaking) == ["descriptors grew from 12 to 16"]


def test_a_sample_sees_memory_and_files_of_the_process(tmp_path):
    before = watch.sample(os.getpid(), 0)
    files = [(tmp_path / str(i)).open("w") for i in range(7)]
    block = bytearray(os.urandom(1 << 20) * 64)
    after = watch.sample(os.getpid(), 1)
    assert after.descriptors - before.descriptors == 7
    assert after.mb - before.mb > len(block) / 2e6
    for file in files:
        file.close()
