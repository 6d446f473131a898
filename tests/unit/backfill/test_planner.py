"""Planning: every piece in exactly one plan, caps kept, equal texts sent once, and any prefix of plans goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.endpoints.services import Caps
from penstock.tasks.backfill.ledger.ledger import pack, unpack
from penstock.tasks.backfill.plan.batch import Batch, Plan, Position, name_task
from penstock.tasks.backfill.plan.planner import Chunked, Planner, digest
from penstock.tasks.backfill.plan.seen import Seen
from penstock.tasks.backfill.sources import Document, InvalidRow

JOB = UUID(int=7)
START = Position()
CAPS = Caps(inputs=4, input_tokens=20, request_tokens=50)

texts = st.text("ab ", min_size=1, max_size=30).filter(str.strip)
rows = st.lists(st.one_of(texts, st.none()), max_size=40)


def spans(text: str, width: int) -> list[tuple[int, int]]:
    return [(start, min(start + width, len(text))) for start in range(0, len(text), width)]


def chunked(corpus: Sequence[str | None], width: int, skip: int = 0) -> Iterator[Chunked]:
    for ordinal, text in enumerate(corpus):
        if ordinal >= skip:
            if text is None:
                yield InvalidRow(ordinal, None, "invalid_json", f"line {ordinal}", ordinal + 100), ()
            else:
                yield Document(ordinal, f"id-{ordinal}", text, ordinal + 100), spans(text, width)


def plan(corpus: Sequence[str | None], width: int, at: Position = START, number: int = 0) -> list[Plan]:
    planner = Planner(JOB, CAPS, None, Seen(8), at, number)
    return list(planner.plans(chunked(corpus, width, at.skip)))


def outputs(plans: Sequence[Plan]) -> list[tuple[int, int | None]]:
    """Where each row and chunk went, as (ordinal, chunk); of dead rows the chunk is None."""
    found: list[tuple[int, int | None]] = []
    for each in plans:
        found += [(output_row.ordinal, output_row.chunk) for output_row in each.batch.output_rows] if each.batch else []
        found += [(duplicate.output_row.ordinal, duplicate.output_row.chunk) for duplicate in each.duplicates]
        found += [(letter.ordinal, letter.chunk) for letter in each.dead]
    return sorted(found, key=str)


def wanted(corpus: Sequence[str | None], width: int) -> list[tuple[int, int | None]]:
    every: list[tuple[int, int | None]] = []
    for ordinal, text in enumerate(corpus):
        every += [(ordinal, None)] if text is None else [(ordinal, n) for n in range(len(spans(text, width)))]
    return sorted(every, key=str)


@settings(max_examples=300, deadline=None)
@given(rows, st.integers(1, 9))
def test_every_piece_and_row_is_in_exactly_one_plan(corpus: list[str | None], width: int) -> None:
    plans = plan(corpus, width)
    assert outputs(plans) == wanted(corpus, width)
    assert sum(each.documents for each in plans) == len(corpus)
    assert sum(each.chunks for each in plans) == sum(chunk is not None for _, chunk in wanted(corpus, width))
    assert [each.last for each in plans] == [False] * (len(plans) - 1) + [True]


@settings(max_examples=300, deadline=None)
@given(rows, st.integers(1, 9), st.data())
def test_a_run_cut_after_any_plan_goes_on_without_loss_or_repetition(
    corpus: list[str | None], width: int, data: st.DataObject
) -> None:
    plans = plan(corpus, width)
    cut = data.draw(st.integers(0, len(plans) - 1))
    kept = plans[:cut]
    at = kept[-1].position if kept else Position()
    rest = plan(corpus, width, at, sum(each.batch is not None for each in kept))
    assert outputs([*kept, *rest]) == wanted(corpus, width)
    assert sum(each.documents for each in [*kept, *rest]) == len(corpus)
    assert sum(each.chunks for each in [*kept, *rest]) == sum(each.chunks for each in plans)
    batches = [each.batch for each in [*kept, *rest] if each.batch]
    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert at.mark == (0 if at.skip == 0 else at.skip + 99)


@settings(max_examples=300, deadline=None)
@given(rows, st.integers(1, 30))
def test_batches_keep_to_the_caps_and_pieces_have_their_own_text(corpus: list[str | None], width: int) -> None:
    batches = [each.batch for each in plan(corpus, width) if each.batch]
    for batch in batches:
        assert 1 <= len(batch.texts) <= CAPS.inputs
        assert len(set(batch.texts)) == len(batch.texts)
        assert batch.size == sum(map(len, batch.texts))
        assert batch.size / 4 <= CAPS.request_tokens or len(batch.texts) == 1  # type: ignore[operator]
        for output_row, index in zip(batch.output_rows, batch.which, strict=True):
            text = corpus[output_row.ordinal]
            assert text is not None
            assert text[output_row.start : output_row.end] == batch.texts[index]


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(1, 5))
def test_an_echo_points_at_the_same_text_in_an_earlier_batch(corpus: list[str | None], width: int) -> None:
    batches: dict[int, Batch] = {}
    for each in plan(corpus, width):
        if each.batch:
            batches[each.batch.number] = each.batch
        for duplicate in each.duplicates:
            text = corpus[duplicate.output_row.ordinal]
            assert text is not None
            assert (
                text[duplicate.output_row.start : duplicate.output_row.end]
                == batches[duplicate.batch].texts[duplicate.text]
            )


def test_a_text_far_over_the_cap_is_a_dead_letter_and_one_near_it_goes_alone() -> None:
    far, near = "a" * (20 * 4 * 4 + 1), "b" * (20 * 4 + 1)
    plans = plan(["one", near, "two", far, "three"], 1000)
    assert [list(each.batch.texts) for each in plans if each.batch] == [["one"], [near], ["two", "three"]]
    (letter,) = [letter for each in plans for letter in each.dead]
    assert (letter.ordinal, letter.chunk, letter.id, letter.code) == (3, 0, "id-3", "input_too_long")
    assert "chunking_settings" in letter.message


def test_a_budget_of_tokens_bounds_requests() -> None:
    planner = Planner(JOB, Caps(inputs=100), 10, Seen(), Position(), 0)
    plans = list(planner.plans(chunked([f"{n:020}" for n in range(10)], 1000)))
    assert [len(each.batch.texts) for each in plans if each.batch] == [2] * 5


def test_a_corpus_of_nothing_but_bad_rows_is_planned_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.tasks.backfill.plan.planner.MOST_ASIDE", 10)
    plans = plan([None] * 35, 5)
    assert [len(each.dead) for each in plans] == [10, 10, 10, 5]
    assert [each.position.skip for each in plans] == [10, 20, 30, 35]


def test_a_task_is_named_by_its_job_its_number_and_its_texts() -> None:
    name = name_task(JOB, 3, b"x" * 16)
    assert name == name_task(JOB, 3, b"x" * 16)
    others = {name_task(UUID(int=8), 3, b"x" * 16), name_task(JOB, 4, b"x" * 16), name_task(JOB, 3, b"y" * 16)}
    assert len({name, *others}) == 4


@given(rows, st.integers(1, 9))
def test_a_batch_comes_back_from_the_ledger_as_it_was(corpus: list[str | None], width: int) -> None:
    for each in plan(corpus, width):
        if batch := each.batch:
            assert unpack(batch.number, batch.task_id, batch.digests, pack(batch)) == batch


@given(st.lists(st.integers(0, 60), max_size=300), st.integers(4, 40))
def test_seen_knows_at_least_the_latest_texts_and_never_a_wrong_place(keys: list[int], limit: int) -> None:
    seen, places = Seen(limit), dict[int, int]()
    for place, key in enumerate(keys):
        code = digest(str(key).encode())
        found = seen.find(code)
        assert found is None or found == places[key]
        if found is None:
            assert key not in [*dict.fromkeys(reversed(keys[:place]))][: limit // 2]
            seen.add(code, place)
            places[key] = place


def test_seen_grows_to_its_bound() -> None:
    seen = Seen(20_000)
    codes = [digest(str(n).encode()) for n in range(30_000)]
    for place, code in enumerate(codes):
        seen.add(code, place)
    assert [seen.find(code) for code in codes[-20_000:]] == list(range(10_000, 30_000))
