"""Names of tasks and of keys in Redis: one table, whose values older messages and records are found by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.config import names
from penstock.config.names import KEYS, find_key

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "penstock:"
TASK = "0b7d3c1e-8b1f-4b5e-9a35-3f1d6e7c2a90"

RELEASED = {
    names.queue_key(PREFIX, names.queue_name("docs", "bulk")): "penstock:penstock.docs.bulk",
    names.queue_key(PREFIX, names.operations_queue("docs")): "penstock:penstock.docs.operations",
    names.queue_key(PREFIX, names.CHUNK_QUEUE): "penstock:penstock.chunk",
    names.queue_key(PREFIX, names.DEFAULT_QUEUE): "penstock:penstock",
    names.unacked_key(PREFIX): "penstock:unacked",
    names.unacked_index_key(PREFIX): "penstock:unacked_index",
    names.holder_key(PREFIX): "penstock:in-flight",
    names.due_key(PREFIX): "penstock:due",
    names.due_messages_key(PREFIX): "penstock:due-messages",
    names.bell_key(PREFIX, "penstock.docs.bulk"): "penstock:bell:penstock.docs.bulk",
    names.lane_key(PREFIX, "openai-1f"): "penstock:lane:{openai-1f}",
    names.used_key(PREFIX, "openai-1f"): "penstock:lane:{openai-1f}:used",
    names.flight_key(PREFIX, "openai-1f"): "penstock:lane:{openai-1f}:flight",
    names.signal_channel(PREFIX): "penstock:lane-news",
    names.endpoints_key(PREFIX): "penstock:endpoints",
    names.endpoints_version_key(PREFIX): "penstock:endpoints:version",
    names.endpoints_salt_key(PREFIX): "penstock:endpoints:salt",
    names.handed_back_key(PREFIX, TASK): f"penstock:handed-back:{TASK}",
    names.progress_key(PREFIX, TASK): f"penstock:progress:{TASK}",
    names.image_key(PREFIX, TASK): f"penstock:image:{TASK}",
    names.stream_key(PREFIX, TASK): f"penstock:stream:{TASK}",
    names.common_bell_key(PREFIX): f"{PREFIX}bell",
    names.work_key(PREFIX, "bulk"): f"{PREFIX}work:bulk",
    names.endpoint_quotas_key(PREFIX): f"{PREFIX}quotas",
    names.sweep_key(PREFIX): f"{PREFIX}sweep",
    names.dead_messages_key(PREFIX): f"{PREFIX}dead-messages",
    names.queue_key(PREFIX, names.suspects_queue("penstock.docs.bulk")): f"{PREFIX}penstock.docs.bulk:suspects",
    names.completed_key(PREFIX): f"{PREFIX}completed",
    names.suspects_turn_key(PREFIX): f"{PREFIX}suspects-turn",
    names.unknown_sweep_key(PREFIX): f"{PREFIX}unknown-sweep",
    names.announced_key(PREFIX): f"{PREFIX}announced",
}


@pytest.mark.parametrize(("built", "released"), RELEASED.items())
def test_a_name_once_released_stays_as_it_is(built: str, released: str) -> None:
    assert built == released


def test_tasks_keep_their_released_names() -> None:
    assert {"penstock.embed", "penstock.complete", "penstock.generate_image"} == names.LANE_TASKS
    assert names.CHUNK_TASK == "penstock.chunk"


def test_every_key_has_an_entry_of_its_own_in_the_table() -> None:
    found = [find_key(PREFIX, key) for key in RELEASED.values()]
    assert None not in found
    assert len(set(found)) == len(RELEASED)
    ours = [each for each in KEYS if "celery" not in each.pattern and "kombu" not in each.pattern]
    assert set(found) == set(ours), "an entry that no function builds"


@pytest.mark.parametrize("key", ["other:unacked", "penstock:", "penstock:nobody", "penstock:lane:openai-1f"])
def test_a_key_that_nobody_named_has_no_entry(key: str) -> None:
    assert find_key(PREFIX, key) is None


def test_no_module_but_names_spells_out_a_task_or_a_key() -> None:
    literals = [re.escape(each) for each in (*names.LANE_TASKS, names.CHUNK_TASK)]
    ends = [each.pattern.partition("{")[0] for each in KEYS if "celery" not in each.pattern]
    parts = sorted({re.escape(end) for end in ends if end.endswith(":")} | {"unacked", "unacked_index", "in-flight"})
    spelt = re.compile(rf"[\"']({'|'.join(literals)}|unacked|unacked_index)[\"']|\}}({'|'.join(parts)})")
    files = [path for folder in ("cli", "config", "tasks", "workers") for path in (ROOT / folder).rglob("*.py")]
    scripts = [
        path for path in (ROOT / "workers").rglob("*.lua") if re.search(rf"'({'|'.join(parts)})", path.read_text())
    ]
    assert [str(path) for path in files if path.name != "names.py" and spelt.search(path.read_text())] == []
    assert scripts == []
