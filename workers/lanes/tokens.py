"""Estimates of tokens, learnt from what providers charge: of inputs by their bytes, of answers by their mean. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: UTF-8 bytes a token in English prose, by OpenAI's own rule of thumb; where a lane starts.
BYTES_PER_TOKEN = 4.0
SMOOTHING = 0.3
#: Ratios outside are no tokenizer's: the usage was absent, zero or nonsense.
LEAST, MOST = 0.5, 64.0
#: Tokens of an answer before anything is known: what Azure charges where no maximum is asked for.
FIRST_ANSWER = 16.0
ANSWER_SMOOTHING = 0.2


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


@dataclass
class CompletionMean:
    """Tokens of one answer to a completion, a smoothed mean; ``FIRST_ANSWER`` before the first."""

    tokens: float = FIRST_ANSWER
    seen: int = 0

    def learn(self, tokens: float) -> None:
        """Take in the tokens of one answer."""
        self.tokens += (tokens - self.tokens) * (ANSWER_SMOOTHING if self.seen else 1.0)
        self.seen += 1


def byte_length(text: str) -> int:
    """Return a text's length in UTF-8 bytes; lone surrogates count as three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
