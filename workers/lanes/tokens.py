"""Estimates of tokens from bytes, by a ratio learnt from what providers charge: pure, one a quota and process."""

from __future__ import annotations

from dataclasses import dataclass

#: UTF-8 bytes a token in English prose, by OpenAI's own rule of thumb; where a lane starts.
BYTES_PER_TOKEN = 4.0
SMOOTHING = 0.3
#: Ratios outside are no tokenizer's: the usage was absent, zero or nonsense.
LEAST, MOST = 0.5, 64.0


@dataclass
class TokenRatio:
    """Bytes a token, as learnt. ``seen`` counts the answers that taught it."""

    bytes_per_token: float = BYTES_PER_TOKEN
    seen: int = 0

    def estimate(self, size: int) -> int:
        """Return the tokens of ``size`` UTF-8 bytes, at least 1."""
        return max(1, round(size / self.bytes_per_token))

    def learn(self, size: int, tokens: float) -> bool:
        """Take in what a provider charged for ``size`` bytes. Returns whether it made sense."""
        if tokens <= 0 or size <= 0:
            return False
        ratio = size / tokens
        if not LEAST <= ratio <= MOST:
            return False
        self.bytes_per_token += (ratio - self.bytes_per_token) * (SMOOTHING if self.seen else 1.0)
        self.seen += 1
        return True


_ratios: dict[str, TokenRatio] = {}


def token_ratio(quota: str) -> TokenRatio:
    """Return this process's ratio for a quota."""
    return _ratios.setdefault(quota, TokenRatio())


def byte_length(text: str) -> int:
    """Return a text's length in UTF-8 bytes; lone surrogates count as three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
