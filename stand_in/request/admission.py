"""Who is let in, in the order in which vendors ask: key, account, quota. Each check raises ``Refused``."""

from __future__ import annotations

from penstock.stand_in.headers import quota_headers, style_of
from penstock.stand_in.options import BILLING_CODES
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Work
from penstock.stand_in.request.refusals import RequestRefused


def check_account(call: Call) -> None:
    """Refuse what ``--refuse`` and ``--cool-down-s`` say, whatever the request holds."""
    options, stand_in = call.options, call.stand_in
    until = options.refuse_until
    if options.refuse and call.number >= options.refuse_from and (until is None or call.number <= until):
        raise _configured(options.refuse, call.model or "the-model")
    left = stand_in.cool_until - call.result
    if left > 0:
        raise refusals.cool_down(call.model or "the-model", left)


def _configured(name: str, model: str) -> RequestRefused:
    if name in BILLING_CODES:
        return refusals.billing(name)
    if name == "slow_down":
        return refusals.slow_down()
    return {"401": refusals.unauthorized, "403": refusals.forbidden}.get(name, lambda: refusals.not_found(model))()


def check_quota(call: Call, work: Work) -> None:
    """Charge the request, or refuse it; either way the answer's headers tell how the quota stands."""
    stand_in, options = call.stand_in, call.options
    if options.max_concurrent is not None and stand_in.working >= options.max_concurrent:
        raise refusals.concurrency(options.max_concurrent)
    limits = stand_in.quota(work.model, call.key)
    now = stand_in.now()
    refusal = limits.admit(now, work.cost)
    style = style_of(options.headers, call.vendor)
    call.headers.update(quota_headers(style, limits.gauges(now), refusal is not None, call.number))
    if refusal is not None:
        raise refusals.rate(refusal, work.model)


def check_model(call: Call, work: Work) -> None:
    """Refuse a model or deployment that does not exist; some paths have none."""
    if work.model and call.options.models and work.model not in call.options.models:
        raise refusals.not_found(work.model)
