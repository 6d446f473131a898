"""The stand-in's statistics."""

from penstock.stand_in.stats import Billing, Second, Stats, steady_minute


def test_texts_billed_more_than_once_are_counted_and_named():
    billing = Billing(limit=100)
    for texts in (["a", "b", "c"], ["b", "c"], ["c"]):
        billing.add(texts)
    report = billing.report()
    assert report["texts_billed"] == 6
    assert report["distinct_texts"] == 3
    assert report["texts_billed_more_than_once"] == 2
    assert report["billed_again"] == 3
    assert report["most_billed"] == [{"count": 3, "text": "c"}, {"count": 2, "text": "b"}]
    assert report["untracked_texts"] == 0


def test_what_is_kept_of_texts_is_bounded():
    billing = Billing(limit=10)
    billing.add([str(number) for number in range(25)])
    billing.add(["0", "24"])
    report = billing.report()
    assert (report["distinct_texts"], report["untracked_texts"], report["billed_again"]) == (10, 16, 1)


def test_the_timeline_holds_ten_minutes():
    stats = Stats()
    for moment in range(1000):
        stats.billed(moment + 0.5, ["a"], 3)
        stats.answered(moment + 0.5, 429)
        stats.answered(moment + 0.5, 500)
    timeline = stats.report(1000, None, None)["timeline"]
    assert len(timeline) == 600
    assert timeline[-1] == [999, 1, 1, 1, 3]


def test_the_steady_minute_is_the_last_whole_one():
    timeline = {moment: Second(served=2, tokens=100, limited=1) for moment in range(100)}
    timeline[99] = Second(served=1)
    steady = steady_minute(timeline, rpm=120, tpm=12_000)
    assert (steady["seconds"], steady["requests"], steady["limited"], steady["tokens"]) == (60, 120, 60, 6000)
    assert (steady["requests_use"], steady["tokens_use"]) == (1.0, 0.5)


def test_a_short_run_has_a_short_span_and_gaps_count_as_idle():
    assert steady_minute({0: Second(served=5)}, 60, None)["seconds"] == 0
    steady = steady_minute({0: Second(served=9), 2: Second(served=4), 5: Second(served=9)}, 60, None)
    assert (steady["seconds"], steady["requests"], steady["requests_use"]) == (4, 4, 1.0)


def test_keys_are_kept_as_hashes_only():
    stats = Stats()
    stats.result(0.0, "p", "sk-secret")
    stats.result(0.0, "p", "")
    report = stats.report(1.0, None, None)
    assert "sk-secret" not in str(report)
    assert report["api_keys"].get("none") == 1
    assert len(report["api_keys"]) == 2


def test_the_most_requests_in_flight_are_remembered():
    stats = Stats()
    for _ in range(3):
        stats.result(1.0, "p", "")
    for _ in range(3):
        stats.left(2.0)
    report = stats.report(3.0, None, None)
    assert (report["in_flight"], report["in_flight_maximum"]) == (0, 3)
    assert (report["first_request_at"], report["last_answer_at"]) == (1.0, 2.0)
