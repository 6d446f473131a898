"""An answer printed as it comes: the worker publishes what the model says, any process reads along.

    penstock endpoint put chat_completion chat --file examples/endpoints/openai-chat.json
    penstock worker
    python examples/chat.py "What is a penstock?"

The final result is the same as without streaming; a stream that is cut raises ``CutStream`` with what had come.
"""

from __future__ import annotations

import os
import sys

from penstock.config.errors import CutStream
from penstock.tasks import complete, stream

ENDPOINT = os.environ.get("ENDPOINT", "chat")


def main(question: str) -> int:
    """Ask, print along, tell what it took."""
    call = complete.delay(question, ENDPOINT, stream=True)
    try:
        for delta in stream(call):
            print(delta.text, end="", flush=True)
    except CutStream as cut:
        print(f"\n[{cut}]", file=sys.stderr)
        return 1
    answer = call.get(timeout=30)
    print(f"\n[{answer.finish_reason}, {answer.usage.completion_tokens} tokens]", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or "What is a penstock?"))
