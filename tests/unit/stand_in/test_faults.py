"""Which request goes wrong."""

from collections import Counter

import pytest

from penstock.stand_in.faults import KINDS, fault_of, normal_kind, pick, uniform


def draws(rates, count=20_000, texts=("a",), by_text=False, seed=7):
    found = (fault_of(number, texts, rates, {}, by_text, seed) for number in range(1, count + 1))
    return [fault and fault[0] for fault in found]


def test_each_kind_comes_at_its_rate():
    counts = Counter(draws({"500": 0.03, "stall": 0.01, "nan": 0.1}))
    assert counts["500"] / 20_000 == pytest.approx(0.03, abs=0.005)
    assert counts["stall"] / 20_000 == pytest.approx(0.01, abs=0.003)
    assert counts["nan"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_faults_and_another_seed_others():
    rates = {"500": 0.2}
    assert draws(rates, 500, seed=1) == draws(rates, 500, seed=1)
    assert draws(rates, 500, seed=1) != draws(rates, 500, seed=2)


def test_drawn_by_text_a_fault_stays_with_its_text_whatever_its_batch():
    texts = [f"text {number}" for number in range(400)]
    rates = {"500": 0.05}
    bad = [text for text in texts if fault_of(1, [text], rates, {}, True, 3)]
    assert 5 <= len(bad) <= 40
    for number in range(5):
        assert fault_of(number, texts, rates, {}, True, 3) == ("500", texts.index(bad[0]))
        assert fault_of(number, [text for text in texts if text not in bad], rates, {}, True, 3) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["fine", "so BAD a text"], ("500", 1)),
        (["fine", "WORSE", "BAD"], ("content-filter", 1)),
        (["fine", "x [[too-long]] y"], ("too-long", 1)),
        (["[[503]]"], ("503", 0)),
        (["[[nothing known]]", "[[ ]]", "[["], None),
        (["a[0] and b[[1]]"], None),
    ],
)
def test_marks_in_texts_bring_their_fault(texts, expected):
    assert fault_of(1, texts, {}, {"BAD": "500", "WORSE": "content-filter"}, False, 0) == expected


def test_rates_fill_the_line_from_zero_in_their_order():
    rates = {"500": 0.25, "nan": 0.5}
    assert [pick(rates, draw) for draw in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.99)] == ["500"] * 2 + ["nan"] * 2 + [
        None
    ] * 2


def test_draws_are_even():
    values = [uniform(0, number) for number in range(10_000)]
    assert 0 <= min(values) < 0.001
    assert 0.999 < max(values) < 1
    assert sum(values) / 10_000 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [*KINDS, "400", "429", "500", "529", "599"])
def test_known_kinds_keep_their_name(kind):
    assert normal_kind(kind) == kind


@pytest.mark.parametrize("kind", ["", "200", "399", "600", "boom"])
def test_unknown_kinds_are_refused_with_those_that_exist(kind):
    with pytest.raises(ValueError, match="reset-before"):
        normal_kind(kind)
