"""docs/collectives.md has the tables of atomics that stand in csrc/comm."""

import subprocess
import sys

from lint.source import ROOT

SCRIPT = ROOT / "scripts" / "copy_atomics.py"


def test_the_page_has_the_headers_tables():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_row_would_be_seen(tmp_path, monkeypatch, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location("copy_atomics", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = tmp_path / "collectives.md"
    page.write_text(script.PAGE.read_text().replace("| Header::failure |", "| Header::success |"))
    monkeypatch.setattr(script, "PAGE", page)
    assert script.main(["--check"]) == 1 and "run python scripts/copy_atomics.py" in capsys.readouterr().out
    assert script.main([]) == 0 and script.main(["--check"]) == 0
    assert "| Header::failure |" in page.read_text()
