-- The limiter: every change of a lane's shared state, each one atomic.
--
-- KEYS[1]  lane   hash: tats, learnt limits, cool-down, state
-- KEYS[2]  used   hash: what the last minute used, by second modulo 64
-- KEYS[3]  flight sorted set: operations in flight, by the time at which they count as gone
-- ARGV[1]  operation, ARGV[2] clock in ms (0: the server's own), ARGV[3] channel for news, the rest by operation.
--
-- Times are milliseconds of the server's clock; limits are per minute; 0 stands for "none".
-- A tat ("theoretical arrival time", GCRA) is the earliest time at which the next request may be sent.

local lane, used, flight = KEYS[1], KEYS[2], KEYS[3]
local now = tonumber(ARGV[2])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000 + t[2] / 1000
end

local h = {}
do
  local raw = redis.call('HGETALL', lane)
  for i = 1, #raw, 2 do h[raw[i]] = raw[i + 1] end
end
local function num(field) return tonumber(h[field]) or 0 end

local changed = {}
local function set(field, value)
  if type(value) == 'number' then value = string.format('%.4f', value) end
  h[field] = value
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
local function save()
  if #changed > 0 then
    redis.call('HSET', lane, unpack(changed))
    redis.call('PEXPIRE', lane, 30 * 86400000)
  end
end

-- What the last minute used --------------------------------------------------------------------
local function count(what, n)
  local second = math.floor(now / 1000)
  local slot = second % 64
  if redis.call('HGET', used, 's' .. slot) ~= tostring(second) then
    redis.call('HSET', used, 's' .. slot, second, 'r' .. slot, 0, 't' .. slot, 0, 'x' .. slot, 0,
      'o' .. slot, 0, 'u' .. slot, 0)
    redis.call('PEXPIRE', used, 120000)
  end
  redis.call('HINCRBYFLOAT', used, what .. slot, n)
end

-- Learnt limits ----------------------------------------------------------------------------------
-- d is 'r' (requests) or 't' (tokens). e<d> is the learnt limit; after a refusal, at the time k<d>, it starts at b<d>, comes
-- near c<d>, the best estimate of the server's own, within RISE_S, stays about it for p<d> seconds, and then goes beyond,
-- ever faster ("CUBIC", RFC 9438). Where c<d> is a guess, p<d> is 0, and it goes up steadily, by GROWTH a second.
--
-- An estimate is what was accepted from one refusal to another: the server had nothing left at both. 'last' is the time of
-- the first of the two; a<d> is what was accepted since, n<d> what was reserved. 'first' is when the lane began, or awoke
-- from idling: the server had all of its window left then.
local RISE_S, SHORTEST_S, LONGEST_S, PROBE, GROWTH = 12, 24, 60, 0.03, 1.03
-- What is measured is cleared by MARGIN, as PACE clears a configured limit, and come near from START of it. A step down by
-- guess is at most STEP; by a NUDGE, doubled for each in a row, where a measurement has hardly begun.
local START, MARGIN, STEP, NUDGE = 0.985, 0.99, 0.75, 0.015
-- The share of refusals up to which one is a stray one, and the same where it costs a few ms.
local STRAY, CHEAP = 0.0025, 0.006
-- A measurement takes so long at least; from so long on it may have begun in another world; from so long on a window of 10 s
-- is full; and a limit that was too high shows so much later.
local ENOUGH_MS, LONG_MS, TEN_S_MS, LAG_S = 4000, 20000, 9500, 2.5
-- A delay that is longer than this speaks of a window that is used up, not of the next place in it.
local WINDOW_MS = 2000
-- A lane is young for so long after 'first', and idles when nobody has asked for so long.
local YOUNG_MS, IDLE_MS = 10000, 10000
-- The pace, a minute, of a lane whose limits nobody knows, and how often it doubles: a limit that it meets is to cost a few
-- refusals and not a storm.
local RAMP, RAMP_DOUBLES_MS = 100 * 60, 1000

-- The learnt limit when nothing was refused for so many seconds.
local function curve(d, quiet)
  local ceiling, start, plateau = num('c' .. d), num('b' .. d), num('p' .. d)
  if plateau == 0 then return ceiling * GROWTH ^ quiet end
  if quiet < RISE_S then return ceiling + (ceiling - start) * (math.max(0, quiet) / RISE_S - 1) ^ 3 end
  return ceiling * (1 + PROBE * (math.max(0, quiet - plateau) / RISE_S) ^ 3)
end

local function quiet(d) return math.max(0, now - num('k' .. d)) / 1000 end

local function grow(d, configured)
  if num('e' .. d) <= 0 then return end
  local e = curve(d, quiet(d))
  if configured > 0 and e >= configured then e = 0 end
  set('e' .. d, e)
end

local function effective(d, configured)
  local e, said = num('e' .. d), num('said' .. d)
  if now - num('saidat') > 300000 then said = 0 end
  local limit = configured
  if e > 0 and (limit <= 0 or e < limit) then limit = e end
  if said > 0 and (limit <= 0 or said < limit) then limit = said end
  return limit
end

local function learn(d, ceiling, start, plateau)
  set('e' .. d, start)
  set('b' .. d, start)
  set('c' .. d, ceiling)
  set('k' .. d, now)
  set('p' .. d, plateau)
end

-- Begin a measurement.
local function measure()
  set('was', num('last'))
  set('last', now)
  for _, d in ipairs({'r', 't'}) do
    set('w' .. d, num('a' .. d))
    set('a' .. d, 0)
    set('n' .. d, 0)
  end
end

-- What was accepted in so many seconds until now, and what share of requests was refused.
local ACCEPTED = {r = 'o', t = 'u'}
local function lately(d, seconds)
  local second, sum, refused, requests = math.floor(now / 1000), 0, 0, 0
  for age = 0, seconds do
    local slot = (second - age) % 64
    local row = redis.call('HMGET', used, 's' .. slot, ACCEPTED[d] .. slot, 'o' .. slot, 'x' .. slot)
    if row[1] == tostring(second - age) then
      -- Of the oldest second, as much as the newest lacks.
      local part = age == seconds and 1 - (now / 1000 - second) or 1
      sum = sum + part * tonumber(row[2])
      requests = requests + part * (tonumber(row[3]) + tonumber(row[4]))
      refused = refused + part * tonumber(row[4])
    end
  end
  return sum, refused / math.max(1, requests)
end

-- Whether a delay is told to the millisecond, as most are that are no whole seconds.
local function exact(delay) return delay > 0 and delay % 1000 ~= 0 end

-- The place of one request on the schedule, in ms.
local function step_of(d, limit) return (d == 't' and math.max(1, num('mean')) or 1) * 60000 / limit end

-- The share of a limit that is right after so many ms without a refusal: where a second's worth, or ten, may come at once, the
-- pace was the less too high the longer it went well.
local function share_after(ms) return math.max(STEP, math.min(0.95, ms / (ms + 1000))) end

-- A guess at the limit from the first refusals, when there is nothing to measure, and how long to stay about it.
local function guess(d, limit, delay)
  -- A server that allows no burst says by its delay how much too early we were; one that allows some is no worse guessed so.
  if exact(delay) and delay <= WINDOW_MS then
    local share = step_of(d, limit) / (step_of(d, limit) + delay)
    return limit * math.max(0.5, math.min(0.985, share)), share > 0.9 and SHORTEST_S or 0
  end
  return limit * share_after(now - num('first')), 0
end

-- The server's limit as far as a refusal shows it, and how long to stay about it (0: it is a guess).
-- delay: ms that the server asked for, 0 where it named none.
local function estimate(d, limit, delay)
  local cycle, young = now - num('last'), now - num('first') < YOUNG_MS
  if num('first') == num('last') then
    -- All that was accepted so far is what the server allows from the first request to the end of its delay.
    if delay <= WINDOW_MS then
      if cycle < TEN_S_MS then return guess(d, limit, delay) end
      delay = 0
    elseif not exact(delay) then
      delay = delay - 500 -- whole seconds are rounded up
    end
    set('rough', d)
    return math.min(limit * 0.985, math.max(num('a' .. d) / (cycle + delay) * 60000 * MARGIN, limit * 0.1)), RISE_S
  end
  if cycle >= ENOUGH_MS then
    set('nudges', 0)
    local allowed, floor = num('a' .. d) / cycle * 60000, limit * 0.5
    if delay <= WINDOW_MS then
      floor = limit * share_after(cycle)
      -- The last 10 s are the server's limit exactly where it keeps a window of 10 s.
      if not young then allowed = math.max(allowed, lately(d, 10) * 6) end
      -- In a long quiet the server may have had more left than we took: it is the limit of a moment ago that was too high.
      if cycle >= LONG_MS then floor = num('c' .. d) > 0 and math.min(limit, curve(d, quiet(d) - LAG_S)) or limit * 0.9 end
    end
    return math.min(limit * 0.995, math.max(allowed, floor) * MARGIN), SHORTEST_S
  end
  if young then return guess(d, limit, delay) end
  -- Again so soon: the more of them in a row, the bigger the steps.
  set('nudges', num('nudges') + 1)
  return limit * (1 - NUDGE * 2 ^ math.min(4, num('nudges') - 1)), SHORTEST_S
end

-- Lower a learnt limit after a refusal.
local function cut(d, configured, delay)
  local limit, before = effective(d, configured), num('c' .. d)
  -- Nobody knew a limit: half of the pace at which we were going.
  if limit <= 0 then limit = num('n' .. d) / math.max(1000, now - num('last')) * 60000 / 2 end
  local _, share = lately(d, 60)
  local tolerated = exact(delay) and delay < 0.05 * step_of(d, limit) and CHEAP or STRAY
  if share < tolerated and now - num('first') > YOUNG_MS then
    -- A stray one: a few ms of jitter are enough where a server allows no burst.
    learn(d, limit, limit * 0.995, math.max(SHORTEST_S, num('p' .. d)))
    return
  end
  set('rough', '')
  local ceiling, plateau = estimate(d, limit, delay)
  -- The same estimate as before: it may be trusted for longer.
  if plateau > 0 and before > 0 and math.abs(ceiling / before - 1) < 0.03 then
    plateau = math.max(plateau, math.min(LONGEST_S, 2 * num('p' .. d)))
  end
  learn(d, ceiling, ceiling * START, plateau)
end

-- Answers to what was sent before the last refusal belong to the measurement that it ended.
local function belated(d, accepted)
  local known = num('w' .. d)
  set('w' .. d, known + accepted)
  if h['rough'] == d and known > 0 and num('e' .. d) > 0 then
    for _, what in ipairs({'b', 'c', 'e'}) do set(what .. d, num(what .. d) * (1 + accepted / known)) end
  end
end

-- The server takes requests again, after it was closed for so long that we had to find out: what it had accepted before is
-- what it allows in the whole time, until it opened, somewhere between our last two attempts.
local function reopened()
  if now - num('closed') < ENOUGH_MS then return end
  local began, counted = num('last'), 'a'
  if num('closed') == num('last') then began, counted = num('was'), 'w' end
  local whole = (num('hit') + now) / 2 - began
  if began == 0 then return end
  for _, d in ipairs({'r', 't'}) do
    local allowed = num(counted .. d) / whole * 60000 * MARGIN
    if allowed > 0 and allowed < num('e' .. d) then learn(d, allowed, allowed, 0) end
  end
end

-- Operations --------------------------------------------------------------------------------------
-- settle ok fresh accepted correction given_back given_back_tokens late seq, from ARGV[i] on: what has come of requests. It rides
-- on other operations and costs no round trip of its own. fresh: those of ok that were sent since the last refusal.
local function settle(i)
  local a = {}
  for n = 0, 7 do a[n + 1] = tonumber(ARGV[i + n]) end
  local ok, fresh, accepted, correction, places, place_tokens, late, seq = unpack(a)
  if seq ~= num('seq') then fresh = 0 end
  if fresh > 0 then
    if num('streak') > 0 then
      reopened()
      set('streak', 0)
      set('tr', math.min(num('tr'), now))
    end
    set('fresh', num('fresh') + fresh)
  end
  if ok > 0 then
    set('ar', num('ar') + fresh)
    belated('r', ok - fresh)
    count('o', ok)
    set('fails', 0)
    if h['state'] == 'probing' then set('state', ''); set('why', '') end
  end
  if accepted > 0 then
    local of_now = ok > 0 and accepted * fresh / ok or accepted
    set('at', num('at') + of_now)
    belated('t', accepted - of_now)
    count('u', accepted)
  end
  if places > 0 then
    count('r', -places)
    count('t', -place_tokens)
    set('nr', math.max(0, num('nr') - places))
    set('nt', math.max(0, num('nt') - place_tokens))
  end
  if late > 0 then
    -- Who was sent late is still in the server's window when those come that were on time: they come later, too.
    set('tr', num('tr') + late)
    set('tt', num('tt') + late)
  end
  -- A refund may not turn past waiting into a burst.
  if correction ~= 0 then set('tt', math.max(num('tt') + correction, now - 1000)) end
end

local function answer(go, wait)
  save()
  return {go, tostring(wait), tostring(num('seq')), h['state'] or '', h['why'] or '',
    tostring(math.max(0, num('cool') - now)), tostring(now)}
end

-- Take a place on the schedule of requests. Returns the ms that it takes.
local function place_request(r, slot, slack)
  if num('streak') > 0 then
    -- As long as the server is closed, one request at a time asks whether it has opened.
    set('tr', slot + 500)
    return 500
  end
  if r <= 0 then return 0 end
  local step = 60000 / r
  -- On a learnt limit nothing is caught up: what was learnt may be that the server allows no burst.
  local late = num('er') > 0 and 0 or math.min(slack, step * 4)
  set('tr', math.max(num('tr'), slot - late) + step)
  return step
end

-- Take a place on the schedule of tokens. Returns the ms that it takes.
local function place_tokens(t, tokens, slot, slack)
  if t <= 0 or tokens <= 0 then return 0 end
  -- A window of 10 s holds a whole request more than an even share: where that is little, stay clear of it.
  local more = 1.8 * num('mean') / (t / 6)
  if more < 0.012 then t = t * (1 - more) end
  local step = tokens * 60000 / t
  set('tt', math.max(num('tt'), slot - (num('et') > 0 and 0 or slack)) + step)
  return step
end

-- reserve rpm tpm tokens bulk max_wait slack share operations lease lease_ms, settle
local function reserve()
  local rpm, tpm, tokens, bulk = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
  local max_wait, slack, share = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  local operations, lease, lease_ms = tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13])
  settle(14)
  grow('r', rpm)
  grow('t', tpm)
  if now - math.max(num('tr'), num('tt'), num('cool')) > IDLE_MS then
    measure()
    set('first', now)
  end

  local state = h['state'] or ''
  if state == 'paused' or state == 'parked' then return answer(-1, 0) end
  if state == 'probing' and num('probe') > now then return answer(0, math.min(500, num('probe') - now)) end

  if operations > 0 then
    redis.call('ZREMRANGEBYSCORE', flight, '-inf', now)
    if redis.call('ZCARD', flight) >= operations and not redis.call('ZSCORE', flight, lease) then
      return answer(0, 1000)
    end
  end

  local slot = math.max(now, num('cool'), num('tr'), num('tt'))
  if slot - now > max_wait then return answer(0, slot - now) end

  local r, t = effective('r', rpm), effective('t', tpm)
  if r <= 0 and t <= 0 then r = RAMP * 2 ^ math.min(20, (now - num('first')) / RAMP_DOUBLES_MS) end
  local spent = math.max(place_request(r, slot, slack), place_tokens(t, tokens, slot, slack))
  -- Bulk is owed its share of the time that interactive work takes, so that it is never starved for good.
  if bulk then set('owed', math.max(0, num('owed') - spent)) else set('owed', math.min(60000, num('owed') + share * spent)) end
  if operations > 0 then redis.call('ZADD', flight, now + lease_ms, lease) end
  if state == 'probing' then set('probe', now + 30000) end
  count('r', 1)
  count('t', tokens)
  set('nr', num('nr') + 1)
  set('nt', num('nt') + tokens)
  set('mean', num('mean') + (tokens - num('mean')) * (num('mean') > 0 and 0.1 or 1))
  return answer(1, slot - now)
end

-- report requests_limit tokens_limit, settle: good news, and what the headers say (0: nothing)
local function report()
  settle(6)
  for i, d in ipairs({'r', 't'}) do
    local said = tonumber(ARGV[3 + i])
    if said > 0 then
      set('said' .. d, said)
      set('saidat', now)
    end
  end
  return answer(1, 0)
end

-- refuse seq delay_ms named dimension rpm tpm: a 429, or a server too busy (dimension: capacity). Only the first of one
-- cool-down is news.
local function refuse()
  local seq, delay, named, dimension = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]
  count('x', 1)
  if seq < num('seq') then return answer(0, math.max(0, num('cool') - now)) end
  local rpm, tpm = tonumber(ARGV[8]), tonumber(ARGV[9])
  grow('r', rpm)
  grow('t', tpm)
  if num('fresh') == 0 and num('seq') > 0 then
    -- Refused again at once: the rate is not to blame, the server's window is used up for longer than was waited.
    if num('streak') == 0 then set('closed', num('hit')) end
    set('streak', num('streak') + 1)
    delay = math.max(delay, math.min(named and 2000 or 10000, 250 * 2 ^ num('streak')))
    for _, d in ipairs({'r', 't'}) do
      if num('k' .. d) > 0 then set('k' .. d, num('k' .. d) + now - num('hit')) end
    end
  elseif dimension ~= 'capacity' then -- that a server is too busy says nothing of our limits
    local tokens = dimension == 'tokens'
    if dimension == '' and tpm > 0 then
      -- Nobody said which limit was hit: the one nearer to being used up.
      tokens = rpm <= 0 or (num('at') / effective('t', tpm)) > (num('ar') / effective('r', rpm))
    end
    cut(tokens and 't' or 'r', tokens and tpm or rpm, named and delay or 0)
    if num('first') == num('last') or now - num('last') >= ENOUGH_MS then measure() end
  end
  set('hit', now)
  set('fresh', 0)
  set('seq', num('seq') + 1)
  set('cool', math.max(num('cool'), now + delay))
  -- All workers give back the places behind the refusal: the schedule begins anew, a step later.
  local r, t = effective('r', rpm), effective('t', tpm)
  set('tr', math.min(num('tr'), math.max(num('cool'), now + (r > 0 and 60000 / r or 0))))
  set('tt', math.min(num('tt'), math.max(num('cool'), now + (t > 0 and num('mean') * 60000 / t or 0))))
  save()
  redis.call('PUBLISH', ARGV[3], lane)
  return answer(1, delay)
end

-- fail breaker_ms threshold: an attempt to which the server gave no good answer; many in a row rest the lane.
local function fail()
  set('fails', num('fails') + 1)
  local fails, threshold = num('fails'), tonumber(ARGV[5])
  if fails >= threshold and fails % threshold == 0 then
    set('cool', math.max(num('cool'), now + tonumber(ARGV[4])))
    redis.call('PUBLISH', ARGV[3], lane)
  end
  return answer(1, 0)
end

-- state new why by version: park, pause, resume
local function change()
  local new = ARGV[4]
  if new == 'parked' and h['state'] == 'paused' then return answer(0, 0) end
  if new == 'resume' then
    -- A lane that was parked lets one request through; the rest follow when that one succeeds.
    new = (h['state'] == 'parked' or h['state'] == 'probing') and 'probing' or ''
    set('probe', 0)
    set('cool', 0)
    set('fails', 0)
  end
  set('state', new)
  set('why', ARGV[5])
  set('by', ARGV[6])
  set('version', ARGV[7])
  set('since', now)
  save()
  redis.call('PUBLISH', ARGV[3], lane)
  return answer(1, 0)
end

-- unpark by version: the endpoint that parked the lane was changed since, so that one request may try again.
local function unpark()
  if h['state'] == 'parked' and h['by'] == ARGV[4] and h['version'] ~= ARGV[5] then
    set('state', 'probing')
    set('probe', 0)
    set('version', ARGV[5])
    save()
    redis.call('PUBLISH', ARGV[3], lane)
  end
  return answer(1, 0)
end

local function release()
  redis.call('ZREM', flight, ARGV[4])
  return answer(1, 0)
end

local operations = {
  reserve = reserve, report = report, refuse = refuse, fail = fail, change = change, unpark = unpark, release = release,
}
return operations[ARGV[1]]()
