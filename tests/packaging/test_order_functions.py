"""scripts/backend/order_functions.py brings functions that resemble each other together."""

import importlib.util
import shutil
import subprocess
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "backend" / "order_functions.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("order_functions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def families(random, count, members, size):
    """Random blocks, of each of which there are some copies with a few other bytes; in a shuffled order."""
    codes, family = [], []
    for number in range(count):
        block = random.integers(0, 256, size, np.uint8)
        for _ in range(members):
            copy = block.copy()
            copy[random.integers(0, size, size // 50)] += np.uint8(1)
            codes.append(copy.tobytes())
            family.append(number)
    mixed = random.permutation(len(codes)).tolist()
    return [codes[i] for i in mixed], [family[i] for i in mixed]


def packed(codes):
    return len(zlib.compress(b"".join(codes), 9))


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_block_become_neighbours(script, seed):
    codes, family = families(np.random.default_rng(seed), count=17, members=5, size=3000)
    order = script.order(codes)
    assert sorted(order) == list(range(len(codes)))
    # One member follows another of its family, until there is none left.
    assert sum(family[a] != family[b] for a, b in pairwise(order)) == 16
    assert packed(codes[i] for i in order) < 0.5 * packed(codes)
    assert script.order(codes) == order


def test_functions_that_are_empty_short_or_alone_keep_a_place(script):
    codes = [b"", b"\xc3", b"\x90" * 5, b"\x90" * 6, b"\x90" * 6, bytes(range(256)) * 200]
    assert sorted(script.order(codes)) == list(range(6))
    assert script.order(codes)[0] == 5  # the largest is the first
    assert script.order([]) == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_functions_of_an_object_are_found_and_written(script, tmp_path):
    source = tmp_path / "some.c"
    source.write_text(
        "static const int table[3] = {1, 2, 3};\n"
        "int first(int x) { return table[x & 1] * 7; }\n"
        "int second(int x) { return table[x & 2] * 9; }\n"
    )
    made = tmp_path / "some.o"
    subprocess.run(["cc", "-O1", "-ffunction-sections", "-c", source, "-o", made], check=True)
    found = dict(script.functions(made))
    assert set(found) == {".text.first", ".text.second"}
    shown = subprocess.run(["readelf", "-SW", made], capture_output=True, text=True, check=True).stdout
    sizes = {
        fields[0]: int(fields[4], 16)
        for fields in (line.partition("]")[2].split() for line in shown.splitlines())
        if fields[:1] and fields[0] in found
    }
    assert {name: len(code) for name, code in found.items()} == sizes
    assert all(code in made.read_bytes() for code in found.values())

    other = tmp_path / "other.o"
    other.write_bytes(b"!<arch>\n" + bytes(100))  # not an object: nothing is found in it
    script.main(str(tmp_path / "order"), [str(made), str(other), str(made)])
    assert sorted((tmp_path / "order").read_text().split()) == [".text.first", ".text.second"]
