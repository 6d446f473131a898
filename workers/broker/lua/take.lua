-- Take one message from the first queue whose lane may send, and note it as unacknowledged in the same step: a worker
-- that dies, or whose connection is cut, at any moment loses nothing.
-- include: lanes/lane
--
-- KEYS[1]  unacked index (sorted set: delivery tag by the time it was taken or renewed, in seconds)
-- KEYS[2]  unacked hash (delivery tag: [message, exchange, routing key] as kombu's own Redis transport keeps it)
-- KEYS[3]  holder hash (delivery tag: queue), for those who want to know what is in flight
-- KEYS[4..] queues, then the lane of each queue ("" where it has none)
-- ARGV[1]  horizon_ms: how far ahead of its slot a bulk message may be taken
-- ARGV[2]  horizon_ms for interactive messages
-- ARGV[3..] by queue: its bare name, and its class ("bulk", "interactive" or "")
-- Returns {queue index, message}, or {0, ms until a lane with waiting messages may open ("" when none waits)}.

local now = clock()
local n = (#KEYS - 3) / 2
local soonest = nil

-- Milliseconds until the lane opens for this class; 0: it is open; nil: not before somebody acts.
local function closed_for(key, class)
  local lane = glance_at(key)
  -- Interactive callers of a parked lane get an error at once; bulk waits for the operator.
  if fails_at_once(lane, class, now) then return 0 end
  local opens = opens_at(lane, now)
  if not opens then return nil end
  if opens > now or state_of(lane, now) == 'probing' then return math.max(0, opens - now) end
  local ahead = math.max(number(lane, 'requests.next_at'), number(lane, 'tokens.next_at')) - now
  local horizon = tonumber(ARGV[2])
  if class == 'bulk' then horizon = tonumber(ARGV[1]) + number(lane, 'bulk_credit_ms') end
  return math.max(0, ahead - horizon)
end

for i = 1, n do
  local queue, lane = KEYS[3 + i], KEYS[3 + n + i]
  local name, class = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  local wait = 0
  if lane ~= '' then wait = closed_for(lane, class) end
  if wait == 0 then
    local message = redis.call('RPOP', queue)
    if message then
      -- The tag is in the properties, the last part of a message; quotes inside strings are escaped, so the last such
      -- key is the tag itself, whatever headers there are before.
      local tag = string.match(string.sub(message, -8192), '.*[{,]%s*"delivery_tag"%s*:%s*"([^"]+)"')
        or string.match(message, '.*[{,]%s*"delivery_tag"%s*:%s*"([^"]+)"')
      redis.call('ZADD', KEYS[1], now / 1000, tag)
      redis.call('HSET', KEYS[2], tag, '[' .. message .. ', "", ' .. cjson.encode(name) .. ']')
      redis.call('HSET', KEYS[3], tag, name)
      return {i, message}
    end
  elseif wait and (not soonest or wait < soonest) and redis.call('EXISTS', queue) == 1 then
    soonest = wait
  end
end
return {0, soonest and tostring(math.ceil(soonest)) or ''}
