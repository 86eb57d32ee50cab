"""The README's Python runs as it stands, and so do the examples."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PEERS = ("torch", "jax", "matplotlib", "cupy")


def run(arguments, folder):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", done.stderr)
    if missing and missing.group(1) in PEERS:
        pytest.skip(f"needs {missing.group(1)}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number, tmp_path):
    # Later snippets may build on earlier ones, as they do for the reader.
    run(["-c", "\n".join(SNIPPETS[: number + 1])], tmp_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    run([str(path)], tmp_path)
