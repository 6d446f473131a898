"""How many tokens a text is taken for."""

from __future__ import annotations

import math
from collections.abc import Sequence


def estimate(texts: Sequence[str], bytes_per_token: float) -> list[int]:
    """Return ``ceil(UTF-8 bytes / bytes_per_token)`` of each text, at least 1."""
    if bytes_per_token == 4:
        return [(len(text.encode("utf-8", "surrogatepass")) + 3) // 4 or 1 for text in texts]
    return [max(1, math.ceil(len(text.encode("utf-8", "surrogatepass")) / bytes_per_token)) for text in texts]
