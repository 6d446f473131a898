"""What happens in a seed: drawn from its number alone, and told in words."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Most scripts that a seed may call.
MOST_CALLS = 5000
#: Of which those of workers with nothing to do, about: a seed lasts the shorter the more workers it has.
IDLE_CALLS = 350
#: Most tasks of a seed.
MOST_TASKS = 75

#: Kinds of trouble that today's engine does not stand, with the item of the issue on the lane's evidence that is to
#: switch each on: move its name to ``KINDS`` with the rule that keeps the promise, and let the seeds run.
SWITCHED_OFF = {
    "outage": "closed lanes (item 2): attempts burn down in an outage of more than a few seconds, and texts die",
    "heavy_brown_out": "the principle: at one failure in two or three, eight attempts do not tell a bad text",
    "sick_host": "the principle: of a worker that reaches nobody every text's attempts burn down",
    "poisoned_probe": "closed lanes (item 2): the probe is whatever text comes first, and may be a bad one",
    "unknown_words": "parking in any words (item 4): an account's refusal in words that we do not know kills its texts",
    "unusable_answer": "unusable 200s (item 5): they are bought again, and kill",
    "slots": "two limits (item 6): a limit in flight is taken for one by rate",
    "pace_503": "two limits (item 6): a bare 503 for pace counts as an attempt, and kills",
    "narrow_pool": "fairness: a pool with no more places than interactive work fills takes no bulk while that waits; "
    "bulk is owed its share of the lane, and gets none of the pool (``invariants.WIDE``)",
    "clock_back_far": "a gap in the broker's time moves leases and schedules by itself (lanes, rule 8): set back by "
    "an hour, the clock holds up schedules and queues for an hour",
    "sent_by_a_lost_lease": "leases are checked before each send (lanes, rule 8): who thaws sends what another one "
    "has answered meanwhile; ``AnsweredOnce`` forgives as many runs as leases ran out",
    "whole_window": "windows and dialects (item 7): a Retry-After that always names the whole window is believed",
}


@dataclass(frozen=True)
class Fault:
    """One trouble.

    Args:
        kind: of ``KINDS``.
        at_s: when it begins, in seconds from the start.
        seconds: how long it lasts.
        worker: whom it befalls.
        amount: how bad it is: a share of requests, or the seconds of a step of the clock.
    """

    kind: str
    at_s: float
    seconds: float = 0.0
    worker: int = 0
    amount: float = 0.0


@dataclass(frozen=True)
class Provider:
    """The shape of the server. ``rpm`` and ``tpm`` are its limits a minute, None for none."""

    window: str
    rpm: float | None
    tpm: float | None
    delay: str  # how a 429 names its delay: "s", "ms" or "none"
    headers: str  # "none", "true", or what they say in place of the truth: "low", "high", "nonsense"
    latency_s: float
    jitter: float
    bytes_per_token: float
    names_culprit: bool
    inputs: int | None  # most in a request


@dataclass(frozen=True)
class Scenario:
    """Everything that a seed decides.

    Args:
        told: the endpoint's own idea of the limits: "right", "twice", "half", or "none".
        tasks: (class, seconds at which it is published, sizes of its texts, positions of bad texts).
        seconds: until faults and publishing are over; then the work must come to its end.
    """

    seed: int
    workers: int
    concurrency: int
    rtt_s: float
    provider: Provider
    told: str
    tasks: tuple[tuple[str, float, tuple[int, ...], frozenset[int]], ...]
    faults: tuple[Fault, ...] = field(default=())
    seconds: float = 10.0

    def limit(self, of: float | None) -> float | None:
        """Return a limit as the endpoint is told it."""
        factor = {"right": 1.0, "twice": 2.0, "half": 0.5}.get(self.told)
        return None if of is None or factor is None else of * factor

    def has(self, *kinds: str) -> bool:
        """Whether any trouble of these kinds happens."""
        return any(fault.kind in kinds for fault in self.faults)

    def __str__(self) -> str:
        shape = self.provider
        lines = [
            f"seed {self.seed}: {self.workers} workers of {self.concurrency}, broker {self.rtt_s * 1000:g} ms away",
            f"  server: {shape.window}, {shape.rpm} requests and {shape.tpm} tokens a minute, told {self.told}; "
            f"{shape.latency_s * 1000:.0f} ms; delays {shape.delay}, headers {shape.headers}",
            f"  {len(self.tasks)} tasks of {sum(len(sizes) for _, _, sizes, _ in self.tasks)} texts, "
            f"{sum(len(bad) for *_, bad in self.tasks)} bad, in {self.seconds:.1f} s",
        ]
        lines += [
            f"  {each.at_s:7.3f} s  {each.kind}  worker {each.worker}, {each.seconds:.2f} s, {each.amount:.2f}"
            for each in self.faults
        ]
        return "\n".join(lines)


def draw(seed: int) -> Scenario:
    """Draw a scenario."""
    chance = random.Random(seed)
    workers = chance.choice([1, 1, 2, 2, 2, 3, 4, 6, 8, 16, 64])
    # A worker that has nothing to do still asks the broker some six times a second.
    seconds = min(chance.uniform(3, 25), IDLE_CALLS / (6 * workers) + 1)
    provider = _provider(chance)
    return Scenario(
        seed=seed,
        workers=workers,
        concurrency=chance.choice([1, 4, 16, 100]),
        rtt_s=chance.choice([0.0, 0.0, 0.0005, 0.002, 0.02, 0.1]),
        provider=provider,
        told=chance.choice(["right", "right", "right", "twice", "half", "none"]),
        tasks=tuple(_tasks(chance, provider, seconds)),
        faults=tuple(sorted(_faults(chance, workers, seconds), key=lambda each: each.at_s)),
        seconds=seconds,
    )


def _provider(chance: random.Random) -> Provider:
    rpm = chance.choice([None, 300.0, 600.0, 1200.0, 3000.0])
    tpm = chance.choice([None, None, 20_000.0, 60_000.0])
    return Provider(
        window=chance.choice(["bucket-1s", "bucket-1s", "sliding-10s", "fixed-10s", "fixed-1s", "bucket-60s", "gcra"]),
        rpm=rpm,
        tpm=tpm,
        delay=chance.choice(["s", "ms", "none"]),
        headers=chance.choice(["none", "none", "true", "low", "high", "nonsense"]),
        latency_s=chance.choice([0.01, 0.05, 0.2, 1.0]),
        jitter=chance.choice([0.0, 0.1, 0.5]),
        bytes_per_token=chance.choice([2.5, 4.0, 6.0]),
        names_culprit=chance.random() < 0.3,
        inputs=chance.choice([None, None, 2, 5]),
    )


def _tasks(
    chance: random.Random, provider: Provider, seconds: float
) -> list[tuple[str, float, tuple[int, ...], frozenset[int]]]:
    per_s = min((provider.rpm or 1500.0) / 60, 25.0)
    wanted = max(4, min(MOST_TASKS, int(per_s * seconds * chance.uniform(0.2, 1.2))))
    mostly = chance.choice(["bulk", "interactive", "both"])
    poisoned = chance.random() < 0.4
    made = []
    for _ in range(wanted):
        kind = chance.choice(["bulk", "interactive"]) if mostly == "both" else mostly
        texts = 1 if kind == "interactive" and chance.random() < 0.7 else chance.randint(1, 8)
        sizes = tuple(chance.choice([20, 40, 60, 120]) for _ in range(texts))
        bad = frozenset(n for n in range(texts) if poisoned and chance.random() < 0.05)
        made.append((kind, chance.uniform(0, seconds * 0.8) if chance.random() < 0.5 else 0.0, sizes, bad))
    return sorted(made, key=lambda each: each[1])


def _death(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("death", at_s, chance.uniform(0.1, 3), worker)  # after so long another is started in its place


def _freeze(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("freeze", at_s, chance.choice([0.3, 2.0, 7.0]), worker)


def _cut(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("cut", at_s, chance.choice([0.05, 1.0, 6.0]), worker)


def _clock_step(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("clock_step", at_s, amount=chance.choice([-5.0, -0.5, 0.5, 3.0, 30.0]))


def _blip(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("blip", at_s, chance.uniform(0.05, 1.0))


def _brown_out(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("brown_out", at_s, chance.uniform(1, 10), amount=chance.choice([0.02, 0.1]))


def _capacity(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("capacity", at_s, chance.uniform(0.2, 2))


def _lost_answers(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("lost_answers", at_s, chance.uniform(0.5, 3), amount=0.1)


def _pause(chance: random.Random, at_s: float, worker: int) -> Fault:
    return Fault("pause", at_s, chance.choice([0.02, 0.2, 1.0, 4.0]))


def _bad_key(chance: random.Random, at_s: float, worker: int) -> Fault:
    # The lane parks; a person puts the key right, and puts the endpoint again, or resumes (too early, perhaps).
    return Fault("bad_key", at_s, chance.uniform(0.2, 5), amount=chance.choice([0.0, 1.0, 2.0]))


#: Kinds of trouble, and how each is drawn.
KINDS = {
    "death": _death,
    "freeze": _freeze,
    "cut": _cut,
    "clock_step": _clock_step,
    "blip": _blip,
    "brown_out": _brown_out,
    "capacity": _capacity,
    "lost_answers": _lost_answers,
    "pause": _pause,
    "bad_key": _bad_key,
}


def _faults(chance: random.Random, workers: int, seconds: float) -> list[Fault]:
    """Draw some kinds for the whole seed, so that many seeds are spared each of them, and some of each."""
    kinds = [kind for kind in KINDS if chance.random() < 0.25]
    return [
        KINDS[kind](chance, chance.uniform(0, seconds * 0.8), chance.randrange(workers))
        for kind in kinds
        for _ in range(chance.choice([1, 1, 2, 4]))
    ]
