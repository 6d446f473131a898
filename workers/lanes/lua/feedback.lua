-- What good answers tell: usage, limits in headers, that a window has opened again.
-- include: lanes/answer

-- The server takes requests again. What it had accepted before it closed is what it allows in the whole time, until it
-- opened, somewhere between our last two attempts.
local function reopened()
  local began, counted = num('measured_from'), '.accepted'
  if num('closed_at') == num('measured_from') then began, counted = num('measured_before'), '.accepted_before' end
  if began > 0 then
    signal('reopened', {
      now = now, closed_ms = now - num('closed_at'), whole_ms = (num('refused_at') + now) / 2 - began,
      requests = num('requests' .. counted), tokens = num('tokens' .. counted),
    })
  end
  set('refusals_in_a_row', 0)
  set('requests.next_at', math.min(num('requests.next_at'), now))
end

-- Answers to what was sent before the last refusal belong to the measurement that it ended.
local function belated(d, accepted)
  if accepted <= 0 then return end
  local before = num(d .. '.accepted_before')
  set(d .. '.accepted_before', before + accepted)
  if lane.rough == d and before > 0 and num(d .. '.limit') > 0 then
    signal('belated', {dimension = d, accepted = accepted, before = before})
  end
end

-- A good answer: a probing lane opens.
local function succeeded()
  set('failures_in_a_row', 0)
  if lane.state ~= 'probing' then return end
  set('state', '')
  set('why', '')
end

local function take_good_answers(ok, fresh)
  if fresh > 0 then
    if num('refusals_in_a_row') > 0 then reopened() end
    set('accepted_since_refusal', num('accepted_since_refusal') + fresh)
  end
  if ok > 0 then
    set('requests.accepted', num('requests.accepted') + fresh)
    belated('requests', ok - fresh)
    count('accepted', ok)
    succeeded()
  end
  local charged = arg('usage.tokens')
  if charged > 0 then
    local of_now = ok > 0 and charged * fresh / ok or charged
    set('tokens.accepted', num('tokens.accepted') + of_now)
    belated('tokens', charged - of_now)
    count('charged', charged)
  end
end

-- usage.ok .fresh .tokens .correction .places .place_tokens .late .seq: what has come of requests, as limiter.UsageReport
-- has it. It rides on other operations and costs no round trip of its own.
local function take_usage()
  take_good_answers(arg('usage.ok'), arg('usage.seq') == num('cooldown_number') and arg('usage.fresh') or 0)
  local places, place_tokens, late, correction =
    arg('usage.places'), arg('usage.place_tokens'), arg('usage.late'), arg('usage.correction')
  if places > 0 then
    count('requests', -places)
    count('tokens', -place_tokens)
    set('requests.reserved', math.max(0, num('requests.reserved') - places))
    set('tokens.reserved', math.max(0, num('tokens.reserved') - place_tokens))
  end
  if late > 0 then
    -- Who was sent late is still in the server's window when those come that were on time: they come later, too.
    for _, d in ipairs(DIMENSIONS) do set(d .. '.next_at', num(d .. '.next_at') + late) end
  end
  -- A refund may not turn past waiting into a burst.
  if correction ~= 0 then set('tokens.next_at', math.max(num('tokens.next_at') + correction, now - 1000)) end
end

-- report <d>.header_limit, usage: good answers, and limits in their headers.
local function report()
  take_usage()
  for _, d in ipairs(DIMENSIONS) do
    if arg(d .. '.header_limit') > 0 then
      set(d .. '.header_limit', arg(d .. '.header_limit'))
      set('header_at', now)
    end
  end
  return answer(GRANTED, 0)
end
