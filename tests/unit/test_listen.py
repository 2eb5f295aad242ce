"""Waiting for files, in a process that has many open."""

import fcntl
import os
import resource

import pytest

from app.db.listen import readable


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (2048 if hard == resource.RLIM_INFINITY else min(2048, hard), hard)
        )


@pytest.mark.usefixtures("many_files")
def test_a_file_with_a_large_number_is_waited_for() -> None:
    reader, writer = os.pipe()
    high = fcntl.fcntl(reader, fcntl.F_DUPFD, 1500)
    try:
        assert readable([high], 0.01) == []
        os.write(writer, b".")
        assert readable([high, writer], 10) == [high]
    finally:
        for file in (reader, writer, high):
            os.close(file)
