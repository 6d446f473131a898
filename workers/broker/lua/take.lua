-- Take one message from the first queue whose lane may send, and note it as unacknowledged in the same step: a worker
-- that dies, or whose connection is cut, at any moment loses nothing.
--
-- KEYS[1]  unacked index (sorted set: delivery tag by the time it was taken or renewed, in seconds)
-- KEYS[2]  unacked hash (delivery tag: [message, exchange, routing key] as kombu's own Redis transport keeps it)
-- KEYS[3]  holder hash (delivery tag: queue), for those who want to know what is in flight
-- KEYS[4..] queues, then the lane of each queue ("" where it has none)
-- ARGV[1]  horizon_ms: how far ahead of its slot a bulk message may be taken
-- ARGV[2]  horizon_ms for interactive messages
-- ARGV[3..] by queue: its bare name, and its class ("bulk", "interactive" or "")
-- Returns {queue index, message}, or {0, ms until a lane with waiting messages may open ("" when none waits)}.

local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local n = (#KEYS - 3) / 2
local soonest = nil

-- Milliseconds until the lane opens for this class; 0: it is open; nil: not before somebody acts.
local function closed_for(lane, class)
  local f = redis.call('HMGET', lane, 'state', 'cool', 'tr', 'tt', 'owed', 'probe')
  local state = f[1] or ''
  if state == 'paused' then return nil end
  -- Interactive callers of a parked lane get an error at once; bulk waits for the operator.
  if state == 'parked' then return class == 'interactive' and 0 or nil end
  local cool = (tonumber(f[2]) or 0) - now
  if cool > 0 then return cool end
  if state == 'probing' then return math.max(0, (tonumber(f[6]) or 0) - now) end
  local ahead = math.max(tonumber(f[3]) or 0, tonumber(f[4]) or 0) - now
  local horizon = tonumber(ARGV[2])
  if class == 'bulk' then horizon = tonumber(ARGV[1]) + (tonumber(f[5]) or 0) end
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
