"""scripts/backend/pack_wheel.py makes wheels smaller and changes nothing in them."""

import importlib.util
import stat
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "backend" / "pack_wheel.py"


@pytest.fixture(params=["deflate", "zlib"])
def pack_wheel(request, monkeypatch):
    """The script, with libdeflate's encoder where it is installed, and with zlib's."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "deflate", None)
    else:
        pytest.importorskip("deflate")
    spec = importlib.util.spec_from_file_location("pack_wheel", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path, seed):
    """A zip file as scikit-build-core writes it: files of many kinds, dates and permissions."""
    random = np.random.default_rng(seed)
    words = [bytes(random.integers(97, 123, int(size)).astype(np.uint8)) for size in random.integers(1, 12, 200)]
    files = {
        "gradring/empty.py": b"",
        "gradring/one.py": b"x",
        "gradring/zeros.so": bytes(30_000),
        "gradring/random.npz": random.bytes(2_000),
        "gradring/text.py": b" ".join(words[i] for i in random.integers(0, 200, 4_000)),
        "gradring/\u00e4.py": "\u00e4 = 1\n".encode(),
        "gradring-0.1.0.dist-info/RECORD": b"\n".join(words),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, data) in enumerate(files.items()):
            entry = zipfile.ZipInfo(name, (1980 + number * 17, 1 + number, 3 + number, 23 - number, 59, 58 - 2 * number))
            entry.compress_type = zipfile.ZIP_STORED if number == 2 else zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | (0o755 if number % 2 else 0o640)) << 16
            archive.writestr(entry, data)
    return files


def facts(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return [
            (e.filename, e.date_time, e.external_attr, e.create_system, e.CRC, archive.read(e)) for e in archive.infolist()
        ]


@pytest.mark.parametrize("seed", range(3))
def test_a_packed_file_has_the_same_content_in_fewer_bytes(pack_wheel, tmp_path, seed):
    path = tmp_path / "some.whl"
    files = written(path, seed)
    before, size = facts(path), path.stat().st_size
    pack_wheel.pack(path)
    assert facts(path) == before and [name for name, *_ in before] == list(files)
    assert path.stat().st_size < size
    assert [file.name for file in tmp_path.iterdir()] == ["some.whl"]
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            best = zlib.compressobj(9, zlib.DEFLATED, -15)
            assert entry.compress_size <= len(best.compress(files[entry.filename]) + best.flush()), entry.filename
            assert entry.compress_size <= entry.file_size
        assert archive.getinfo("gradring/random.npz").compress_type == zipfile.ZIP_STORED
    packed = path.read_bytes()
    pack_wheel.pack(path)
    assert path.read_bytes() == packed


def test_an_encoder_that_damages_a_file_leaves_the_wheel_as_it_was(pack_wheel, tmp_path, monkeypatch):
    path = tmp_path / "some.whl"
    written(path, 0)
    before = path.read_bytes()
    encode = pack_wheel.encoder()
    monkeypatch.setattr(pack_wheel, "encoder", lambda: lambda data: encode(data[:-1] + b"?"))
    with pytest.raises(RuntimeError, match=r"damaged gradring/empty\.py of .*some\.whl"):
        pack_wheel.pack(path)
    assert path.read_bytes() == before


def test_more_than_plain_headers_can_describe_stays_as_it_was(pack_wheel, tmp_path, monkeypatch):
    path = tmp_path / "some.whl"
    written(path, 0)
    before = path.read_bytes()
    for name, most in (("_MOST_FILES", 3), ("_MOST_BYTES", 10_000)):
        with monkeypatch.context() as patched:
            patched.setattr(pack_wheel, name, most)
            pack_wheel.pack(path)
        assert path.read_bytes() == before
    pack_wheel.pack(path)
    assert path.read_bytes() != before


def test_the_command_packs_what_it_is_given(pack_wheel, tmp_path):
    import subprocess

    paths = [tmp_path / "a.whl", tmp_path / "b.whl"]
    for seed, path in enumerate(paths):
        written(path, seed)
    before = [path.stat().st_size for path in paths]
    done = subprocess.run([sys.executable, SCRIPT, *paths], capture_output=True, text=True, check=True)
    for path, size in zip(paths, before, strict=True):
        assert f"{path}: {size:,} bytes, now {path.stat().st_size:,}" in done.stdout
