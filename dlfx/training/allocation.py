"""Memory on CPU: freed blocks are kept for the next call."""

import ctypes

# Of malloc.h in glibc.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
PAD = 64 << 20  # bytes that the heap grows by


def keep_freed_memory() -> bool:
    """Tells the allocator of this process not to give freed memory back; False where that cannot be told.

    On CPU XLA allocates the temporaries and results of every call anew. glibc takes such large blocks from the kernel
    and gives them back, and each page is then cleared and mapped again at its first touch: a quarter of the time of a
    training step of a GPT of 4 layers, 128 wide. The price is that memory once used stays with the process.

    Source: mallopt(3) of the Linux man-pages.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, PAD)])
