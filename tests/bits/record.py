"""Record the bits of this build anew, at every instruction set: ``python tests/bits/record.py``."""

import json

from test_bits import HERE, LEVELS, compiler, measured

if __name__ == "__main__":
    recorded = {"compiler": compiler(), "hashes": {level: measured(level) for level in LEVELS}}
    (HERE / "hashes.json").write_text(json.dumps(recorded, indent=1) + "\n")
