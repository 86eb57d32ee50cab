"""copy: an array as it is. Only programs use this op."""

from __future__ import annotations

from gradring.ops._declare import declare

__all__: list[str] = []

declare("copy", reference=lambda x: {"y": x})
