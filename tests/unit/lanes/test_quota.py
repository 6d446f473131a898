"""What a process keeps of its quotas."""

from __future__ import annotations

from penstock.workers.lanes.quota import QuotaTable


def test_what_was_learnt_is_kept_by_quota_until_it_is_evicted() -> None:
    table = QuotaTable()
    kept, gone = table.of("kept"), table.of("gone")
    assert table.of("kept") is kept
    assert kept is not gone
    table.evict(keep=lambda quota: quota != "gone")
    assert len(table) == 1
    assert table.of("kept") is kept
    assert table.of("gone") is not gone
