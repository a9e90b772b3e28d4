"""A disk that fills up, for the tests that need one."""

import resource
from contextlib import contextmanager


@contextmanager
def files_up_to(size):
    """Within the block the system refuses to let a file grow beyond this many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
