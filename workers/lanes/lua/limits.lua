-- The limits in force: configured ones, those that headers told, and those that refusals taught. How a learnt limit is
-- found is workers/lanes/learning.py; here is how it grows, for every reservation looks at it.
-- include: lanes/used
--
-- Of a learnt limit <d>.limit ('requests' or 'tokens'): after a refusal, at the time <d>.cut_at, it starts at <d>.start,
-- comes near <d>.ceiling, the best estimate of the server's own, within RISE_S, stays about it for <d>.plateau_s seconds,
-- and then goes beyond, ever faster ("CUBIC", RFC 9438). Where the ceiling is a guess, the plateau is 0, and it goes up
-- steadily, by GROWTH a second.

-- The learnt limit when nothing was refused for so many seconds.
local function curve(d, quiet_s)
  local PROBE, GROWTH = 0.03, 1.03
  local ceiling, start, plateau_s = num(d .. '.ceiling'), num(d .. '.start'), num(d .. '.plateau_s')
  if plateau_s == 0 then return ceiling * GROWTH ^ quiet_s end
  if quiet_s < RISE_S then return ceiling + (ceiling - start) * (math.max(0, quiet_s) / RISE_S - 1) ^ 3 end
  return ceiling * (1 + PROBE * (math.max(0, quiet_s - plateau_s) / RISE_S) ^ 3)
end

local function quiet_s(d) return math.max(0, now - num(d .. '.cut_at')) / 1000 end

-- Let a learnt limit grow until now; at the configured one it has done its work.
local function grow(d)
  if num(d .. '.limit') <= 0 then return end
  local limit, configured = curve(d, quiet_s(d)), arg(d .. '.configured')
  if configured > 0 and limit >= configured then limit = 0 end
  set(d .. '.limit', limit)
end

-- The lowest of the limits that there are, 0 for none.
local function in_force(d)
  local HEADER_MS = 300000 -- a limit in the headers is forgotten after so long
  local headers = now - num('header_at') > HEADER_MS and 0 or num(d .. '.header_limit')
  local lowest = 0
  for _, limit in ipairs({arg(d .. '.configured'), num(d .. '.limit'), headers}) do
    if limit > 0 and (lowest <= 0 or limit < lowest) then lowest = limit end
  end
  return lowest
end

-- An estimate is what was accepted from one refusal to another: the server had nothing left at both. 'measured_from' is
-- the time of the first of the two; <d>.accepted is what was accepted since, <d>.reserved what was reserved. When the
-- lane began, or awoke from idling ('awake_since'), the server had all of its window left.
local function begin_measurement()
  set('measured_before', num('measured_from'))
  set('measured_from', now)
  for _, d in ipairs(DIMENSIONS) do
    set(d .. '.accepted_before', num(d .. '.accepted'))
    set(d .. '.accepted', 0)
    set(d .. '.reserved', 0)
  end
end

-- What learning starts from: names and values, as learning.Known has them.
local LEARNT = {'limit', 'start', 'ceiling', 'plateau_s', 'cut_at'}
local function known()
  local LAG_S = 2.5 -- a limit that was too high shows so much later
  local list = {'rough', lane.rough or '', 'small_steps', num('small_steps'), 'version', num('learnt_version')}
  for _, d in ipairs(DIMENSIONS) do
    for _, name in ipairs(LEARNT) do
      list[#list + 1] = d .. '.' .. name
      list[#list + 1] = num(d .. '.' .. name)
    end
    list[#list + 1] = d .. '.in_force'
    list[#list + 1] = in_force(d)
    list[#list + 1] = d .. '.lagged'
    list[#list + 1] = num(d .. '.ceiling') > 0 and curve(d, quiet_s(d) - LAG_S) or 0
  end
  for i, value in ipairs(list) do list[i] = type(value) == 'number' and string.format('%.17g', value) or value end
  return list
end
