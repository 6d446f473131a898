-- A place for one request: the call that every request makes, so that it is a script of its own.
-- include: lanes/pacing

-- Whether the operation finds no room among those in flight.
local function is_full()
  if arg('operations') <= 0 then return false end
  redis.call('ZREMRANGEBYSCORE', flight_key, '-inf', now)
  return redis.call('ZCARD', flight_key) >= arg('operations') and not redis.call('ZSCORE', flight_key, argument.lease)
end

-- Bulk is owed its share of the time that interactive work takes, so that it is never starved for good.
local function credit_bulk(spent)
  local MOST_CREDIT_MS = 60000
  if arg('bulk') > 0 then
    set('bulk_credit_ms', math.max(0, num('bulk_credit_ms') - spent))
  else
    set('bulk_credit_ms', math.min(MOST_CREDIT_MS, num('bulk_credit_ms') + arg('bulk_share') * spent))
  end
end

-- A lane on which nobody has asked for long begins a new measurement.
local function awake()
  local IDLE_MS = 10000
  if now - math.max(num('requests.next_at'), num('tokens.next_at'), num('cooldown_until')) <= IDLE_MS then return end
  begin_measurement()
  set('awake_since', now)
end

local function take_place(at)
  local requests, tokens = in_force('requests'), in_force('tokens')
  if requests <= 0 and tokens <= 0 then
    -- Nobody knows a limit: the one that this pace meets is to cost a few refusals and not a storm.
    local RAMP, RAMP_DOUBLES_MS = 100 * 60, 1000
    requests = RAMP * 2 ^ math.min(20, (now - num('awake_since')) / RAMP_DOUBLES_MS)
  end
  credit_bulk(math.max(place_request(requests, at), place_tokens(tokens, at)))
  if arg('operations') > 0 then redis.call('ZADD', flight_key, now + arg('lease_ms'), argument.lease) end
  if lane.state == 'probing' then
    local PROBE_MS = 30000 -- a probe of which nothing is heard for so long is followed by another
    set('probe_until', now + PROBE_MS)
  end
  count('requests', 1)
  count('tokens', arg('tokens'))
  set('requests.reserved', num('requests.reserved') + 1)
  set('tokens.reserved', num('tokens.reserved') + arg('tokens'))
  local mean = num('mean_tokens')
  set('mean_tokens', mean + (arg('tokens') - mean) * (mean > 0 and 0.1 or 1))
end

-- reserve <d>.configured tokens bulk bulk_share ahead_ms slack_ms operations lease lease_ms, usage: a place for a
-- request and its tokens, both or neither, if there is one within ahead_ms.
local function reserve()
  local ASK_AGAIN_MS, OPERATIONS_MS = 500, 1000 -- when to ask again for who waits for a probe, or for an operation to end
  take_usage()
  if #signals > 0 then return answer(NOT_NOW, 0) end -- it is asked again, by the limits that these teach
  for _, d in ipairs(DIMENSIONS) do grow(d) end
  awake()
  local opens = opens_at(lane, now)
  if not opens then return answer(CLOSED, 0) end
  if lane.state == 'probing' and opens > now then return answer(NOT_NOW, math.min(ASK_AGAIN_MS, opens - now)) end
  if is_full() then return answer(NOT_NOW, OPERATIONS_MS) end
  local at = math.max(now, opens, num('requests.next_at'), num('tokens.next_at'))
  if at - now <= arg('ahead_ms') then
    take_place(at)
    return answer(GRANTED, at - now)
  end
  return answer(NOT_NOW, at - now)
end

return reserve()
