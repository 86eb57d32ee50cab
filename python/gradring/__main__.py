"""``python -m gradring``, the same as the command ``gradring``."""

from gradring.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
