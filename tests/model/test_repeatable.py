"""harness.model.repeatable: what a thread gives back is there for its next piece of work."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import torch
from harness.model import keep_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory()

def work(counts):
    for _ in range(10):
        parts = [torch.zeros(2**20) for _ in range(40)]  # 160 MB, more than one pool of a thread
        del parts
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

counts = []
thread = threading.Thread(target=work, args=(counts,))
thread.start()
thread.join()
print(counts[-1] - counts[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_a_thread_frees_is_not_taken_anew_page_by_page():
    found = {}
    for way in ("keep", "as it comes"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        found[way] = int(done.stdout)
    if found["as it comes"] < 10_000:
        pytest.skip(f"this system gives memory in large pages: {found}")
    assert found["keep"] < 0.5 * found["as it comes"], found
