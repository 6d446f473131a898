"""How fast the chunkers are, and how much memory they take.

    python benchmarks/chunking.py [--megabytes 5] [--repeat 5] [--memory-megabytes 50] [--json]

Each strategy is paired with a yardstick in the same round: ``str.split`` and joining every 250 words, which knows
neither punctuation nor sentences. The round is repeated, and the medians are told: megabytes (UTF-8) a second on one
core, and the ratio to the yardstick. The English text is the docstrings of the running Python's standard library,
prose with some code in it.

Memory is measured in a process of its own for each case: the peak resident set above what the process held with the
text alone, as a multiple of the text's own size in memory. The kernel tells it, so this part needs Linux.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from penstock.tasks.chunking import SEPARATOR_GROUPS, recursive_chunks, sentence_chunks, word_chunks

Chunker = Callable[[str], object]

STRATEGIES: dict[str, Chunker] = {
    "sentence 250/1": lambda text: sentence_chunks(text, 250, 1),
    "sentence 20/1": lambda text: sentence_chunks(text, 20, 1),
    "word 250/100": lambda text: word_chunks(text, 250, 100),
    "recursive 250 plaintext": lambda text: recursive_chunks(text, 250, SEPARATOR_GROUPS["plaintext"]),
    "recursive 250 markdown": lambda text: recursive_chunks(text, 250, SEPARATOR_GROUPS["markdown"]),
}
DEFAULT = "sentence 250/1"

SAMPLES = {
    "English, \u2019 and é": "",
    "Russian": "Это простой русский текст для проверки, и он не очень длинный. Вот ещё одно предложение!\n",
    "Japanese": "創業当初の会社から、二度社名を変更。海外拠点を増やし、本格的な国際進出を始動した。\n",
    "Arabic": "هذا نص عربي قصير للتجربة فقط، وفيه جملة ثانية. وهل هناك جملة ثالثة؟ نعم!\n",
    "Thai": "ภาษาไทยไม่มีช่องว่างระหว่างคำ แต่มีช่องว่างระหว่างประโยค\n",
    "emoji in English": "We shipped it 🎉 today. Thanks to all 👍🏽 who helped! Next week we go on.\n",
}


def english(size: int) -> str:
    """Return ``size`` characters of the standard library's docstrings, repeated as needed."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                found.append(text)
    return repeated("\n\n".join(found).encode("ascii", "ignore").decode() + "\n\n", size)


def repeated(text: str, size: int) -> str:
    """Return ``size`` characters of ``text`` over and over."""
    return (text * (size // len(text) + 1))[:size]


def sample(name: str, size: int) -> str:
    """Return a text of some ``size`` bytes of UTF-8."""
    if not SAMPLES.get(name):
        text = english(size)
        return text.replace("'", "\u2019").replace("e ", "é ")[: int(size * 0.93)] if name in SAMPLES else text
    unit = SAMPLES[name]
    return repeated(unit, size * len(unit) // len(unit.encode()))


def yardstick(text: str) -> list[str]:
    """Split at white space and join every 250 words."""
    words = text.split()
    return [" ".join(words[n : n + 250]) for n in range(0, len(words), 250)]


def seconds(chunker: Chunker, text: str) -> float:
    """Return how long one call takes on this core."""
    begin = time.process_time()
    chunker(text)
    return time.process_time() - begin


def paired(chunker: Chunker, text: str, repeat: int) -> dict[str, float]:
    """Return megabytes a second and the ratio to the yardstick, medians of rounds that hold both."""
    size = len(text.encode()) / 1e6
    rounds = [(seconds(chunker, text), seconds(yardstick, text)) for _ in range(repeat)]
    return {
        "mb_per_s": size / statistics.median(ours for ours, _ in rounds),
        "ratio": statistics.median(plain / ours for ours, plain in rounds),
        "megabytes": size,
    }


def speeds(megabytes: float, repeat: int) -> list[dict[str, object]]:
    """Measure each strategy on English, and the default on other scripts."""
    size = int(megabytes * 1e6)
    cases = [("English", strategy) for strategy in STRATEGIES]
    cases += [(name, DEFAULT) for name in SAMPLES]
    rows: list[dict[str, object]] = []
    texts = {name: sample(name, size) for name, _ in cases}
    for name, strategy in cases:
        STRATEGIES[strategy](texts[name][:10_000])  # tables are made on first use
        rows.append({"text": name, "strategy": strategy, **paired(STRATEGIES[strategy], texts[name], repeat)})
    return rows


MEMORY_CASES = [
    ("English", DEFAULT),
    ("English", "word 250/100"),
    ("English", "recursive 250 plaintext"),
    ("Japanese", DEFAULT),
    ("one sentence", DEFAULT),
    ("one word", DEFAULT),
]


def memory_text(name: str, size: int) -> str:
    """Return a text for a case of memory; the last two are what a hostile document looks like."""
    hostile = {"one sentence": "word ", "one word": "a"}
    return repeated(hostile[name], size) if name in hostile else sample(name, size)


def measure_memory(file: str, strategy: str) -> dict[str, object]:
    """Return the peak of this process above what it held with the text; for a process of its own."""
    STRATEGIES[strategy]("A sentence. " * 100)
    text = Path(file).read_text()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: reading the text took more than the text
    held, before = sys.getsizeof(text), peak()
    begin = time.perf_counter()
    STRATEGIES[strategy](text)
    took, most = time.perf_counter() - begin, peak()
    return {
        "strategy": strategy,
        "text_mb": held / 1e6,
        "above_mb": (most - before) / 1e6,
        "multiple": (most - before) / held,
        "peak_rss_mb": most / 1e6,
        "seconds": took,
    }


def peak() -> int:
    """Return the peak resident set of this process in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def memory(megabytes: float) -> list[dict[str, object]]:
    """Measure each case in a process of its own."""
    rows = []
    for name, strategy in MEMORY_CASES:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(memory_text(name, int(megabytes * 1e6)))
            file.flush()
            child = [sys.executable, __file__, "--case", file.name, strategy]
            done = subprocess.run(child, check=True, capture_output=True, text=True)
        rows.append({"text": name, **json.loads(done.stdout)})
    return rows


def show(results: dict[str, object], rows: list[dict[str, object]], peaks: list[dict[str, object]]) -> None:
    """Print Markdown."""
    print(f"Python {results['python']}, {results['machine']}, one core.\n")
    print("| text | strategy | MB/s | times `str.split` |\n|---|---|---:|---:|")
    for row in rows:
        print(f"| {row['text']} | {row['strategy']} | {row['mb_per_s']:.1f} | {row['ratio']:.2f} |")
    print("\n| text | strategy | text, MB | above it, MB | multiple | peak RSS, MB | s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in peaks:
        print(
            f"| {row['text']} | {row['strategy']} | {row['text_mb']:.0f} | {row['above_mb']:.0f} "
            f"| {row['multiple']:.1f} | {row['peak_rss_mb']:.0f} | {row['seconds']:.1f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=5.0, help="size of each text for speed")
    parser.add_argument("--repeat", type=int, default=5, help="rounds, each with a yardstick of its own")
    parser.add_argument("--memory-megabytes", type=float, default=50.0, help="size of each text for memory; 0: none")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--case", nargs=2, metavar=("FILE", "STRATEGY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure_memory(*options.case)))
        return
    rows = speeds(options.megabytes, options.repeat)
    peaks = memory(options.memory_megabytes) if options.memory_megabytes else []
    results: dict[str, object] = {"python": platform.python_version(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({**results, "speed": rows, "memory": peaks}, indent=2))
    else:
        show(results, rows, peaks)


if __name__ == "__main__":
    main()
