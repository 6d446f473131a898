-- What an operation answers, and what it gives Python to learn from.
-- include: lanes/limits

-- Signals of this operation: rare, for only a refusal, a window that opens again and a belated answer after a rough
-- estimate change a limit. Each is a list: its kind, then names and values (learning.py has them as classes).
local signals = {}
local function signal(kind, fields)
  local list = {kind}
  for name, value in pairs(fields) do
    list[#list + 1] = name
    list[#list + 1] = type(value) == 'number' and string.format('%.17g', value) or value
  end
  signals[#signals + 1] = list
end

local GRANTED, NOT_NOW, CLOSED = 1, 0, -1

-- {verdict, ms to wait, number of the cool-down, what holds the lane ('' nothing), why, ms of cooling left, clock},
-- and where there is something to learn {..., signals, what is known so far}.
local function answer(verdict, wait_ms, teach)
  save()
  save_counts()
  local paused = is_paused(lane)
  local reply = {
    verdict, text_of(wait_ms), text_of(num('cooldown_number')), paused and 'paused' or lane.state or '',
    (paused and lane.pause_why or lane.why) or '', text_of(math.max(0, num('cooldown_until') - now)), text_of(now),
  }
  if teach or #signals > 0 then
    reply[8], reply[9] = signals, known()
  end
  return reply
end
