import pytest

from cases.bad_input import Command


@pytest.fixture
def command(tmp_path, capsys):
    return Command(tmp_path, capsys)
