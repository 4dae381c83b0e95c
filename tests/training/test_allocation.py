import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys

import numpy as np

from dlfx.training.allocation import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
np.ones(1 << 24, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 24, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(told: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, told], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("the allocator is not glibc's")
    return int(done.stdout)


def test_memory_that_was_freed_is_not_mapped_again():
    assert faults("keep") < 100 < faults("as it is")
