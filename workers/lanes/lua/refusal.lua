-- Refusals. What one must do at once is here: cool the lane, once for all workers, and begin the schedule anew. What it
-- teaches is found by learning.py from the signal, and comes back by `learn`.
-- include: lanes/feedback
-- include: lanes/state

-- Where the schedule begins anew after a refusal, if it stood at this time: all workers give back the places behind it.
-- A step later at the earliest.
local function restart(d, stood_at, limit)
  local cost = d == 'tokens' and num('mean_tokens') or 1
  local step = limit > 0 and cost * 60000 / limit or 0
  return math.min(stood_at, math.max(num('cooldown_until'), num('refused_at') + step))
end

local function signal_refused()
  local minute, ten_s = lately(60), lately(10)
  local fields = {
    now = now, dimension = argument.dimension, delay_ms = arg('named') > 0 and arg('delay_ms') or 0,
    awake_ms = now - num('awake_since'), measured_ms = now - num('measured_from'), mean_tokens = num('mean_tokens'),
    refused_share = minute.refused / math.max(1, minute.accepted + minute.refused),
  }
  for _, d in ipairs(DIMENSIONS) do
    fields[d .. '.configured'] = arg(d .. '.configured')
    fields[d .. '.accepted'] = num(d .. '.accepted')
    fields[d .. '.accepted_10_s'] = ten_s[ACCEPTED[d]]
    fields[d .. '.reserved'] = num(d .. '.reserved')
    fields[d .. '.stood_at'] = num(d .. '.next_at')
  end
  signal('refused', fields)
end

-- Refused again at once: the rate is not to blame, the server's window is used up for longer than was waited. Returns
-- the ms to wait.
local function refused_again()
  -- It is asked less and less often, after BACK_OFF_MS, doubled each time, up to so long. A delay that it names is
  -- obeyed; only one that proved too short, again and again, becomes as much as LONGEST_NAMED_MS.
  local BACK_OFF_MS, LONGEST_MS, LONGEST_NAMED_MS = 250, 10000, 2000
  if num('refusals_in_a_row') == 0 then set('closed_at', num('refused_at')) end
  set('refusals_in_a_row', num('refusals_in_a_row') + 1)
  for _, d in ipairs(DIMENSIONS) do
    -- While the server is closed no limit grows.
    if num(d .. '.cut_at') > 0 then set(d .. '.cut_at', num(d .. '.cut_at') + now - num('refused_at')) end
  end
  local longest = arg('named') > 0 and LONGEST_NAMED_MS or LONGEST_MS
  return math.max(arg('delay_ms'), math.min(longest, BACK_OFF_MS * 2 ^ num('refusals_in_a_row')))
end

-- refuse seq delay_ms named dimension <d>.configured: a 429, or a server too busy (dimension: capacity, which says
-- nothing of our limits). Only the first of one cool-down counts; the others were sent before it.
local function refuse()
  count('refused', 1)
  if arg('seq') < num('cooldown_number') then return answer(NOT_NOW, math.max(0, num('cooldown_until') - now)) end
  for _, d in ipairs(DIMENSIONS) do grow(d) end
  local again, delay = num('accepted_since_refusal') == 0 and num('cooldown_number') > 0, arg('delay_ms')
  if again then
    delay = refused_again()
  elseif argument.dimension ~= 'capacity' then
    signal_refused()
    if num('awake_since') == num('measured_from') or now - num('measured_from') >= ENOUGH_MS then begin_measurement() end
  end
  set('refused_at', now)
  set('accepted_since_refusal', 0)
  set('cooldown_number', num('cooldown_number') + 1)
  cool_until(now + delay)
  for _, d in ipairs(DIMENSIONS) do
    local next_at = num(d .. '.next_at')
    -- Whoever asks whether the server has opened obeys the delay that it named, whatever the pace.
    local waits = again and arg('named') > 0
    set(d .. '.next_at', waits and math.min(next_at, num('cooldown_until')) or restart(d, next_at, in_force(d)))
  end
  signal_workers()
  return answer(GRANTED, delay)
end

-- learn version <d>.configured, names and values: write what was learnt, unless somebody else has learnt since the
-- version. <d>.stood_at: after a refusal, where the schedule stood: it began anew with the step of the limit until then.
local function learn()
  if arg('version') ~= num('learnt_version') then return answer(NOT_NOW, 0, true) end
  local before = {}
  for _, d in ipairs(DIMENSIONS) do
    before[d] = in_force(d)
    for _, name in ipairs(LEARNT) do
      local field = d .. '.' .. name
      if argument[field] then set(field, arg(field)) end
    end
  end
  if argument.rough then set('rough', argument.rough) end
  if argument.small_steps then set('small_steps', arg('small_steps')) end
  set('learnt_version', num('learnt_version') + 1)
  for _, d in ipairs(DIMENSIONS) do
    local stood_at = tonumber(argument[d .. '.stood_at'])
    if stood_at then
      local later = restart(d, stood_at, in_force(d)) - restart(d, stood_at, before[d])
      set(d .. '.next_at', num(d .. '.next_at') + later)
    end
  end
  return answer(GRANTED, 0)
end
