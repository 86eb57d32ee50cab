"""Files stay short enough to read in one go."""

from statistics import median

import pytest

from lint.source import cpp_files, name, python_files

FILES = [*cpp_files(), *python_files()]


def lines(path):
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_longer_than_600_lines(path):
    assert lines(path) <= 600


def test_the_median_file_is_at_most_150_lines():
    assert median(map(lines, FILES)) <= 150
