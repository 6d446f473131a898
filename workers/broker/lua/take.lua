-- Take messages from the queues whose lanes may send, and lease them in the same step: a worker that dies, or whose
-- connection is cut, at any moment loses nothing. Costs the same however many lanes there are: only those with work are
-- looked at, those first that may have become ready.
-- include: lanes/lane
--
-- KEYS[1] lease index (sorted set: delivery tag by the time it was taken or renewed, in seconds)
-- KEYS[2] leased messages (hash: delivery tag, [message, exchange, queue] as kombu's own Redis transport keeps it)
-- KEYS[3] holders (hash: delivery tag, queue), for those who want to know what is in flight
-- KEYS[4] quotas (hash: endpoint's id, name of its quota)
-- KEYS[5..] indexes of queues with work (sorted sets: queue by the time from which a look is worth it, in ms), in the
--          order in which they are served; or, where the worker was told its queues, none
-- ARGV[1]  clock
-- ARGV[2]  a JSON object: prefix of all keys, lane_queue (what names of lanes' queues begin with), lane (its key, the
--          quota's name as %s), tag (prefix of the new delivery tags), room (most messages to take), horizon
--          (ms by class: how far ahead of its slot a message may be taken), allowance (most messages by class that are
--          taken of one queue), allowances (the same by queue, where it is another; below 0: it is not served here), only
--          (queues; in place of the indexes)
-- Returns {ms until a queue with work may become ready (-1: none has work, 0: some are ready but not for this worker),
--          tag, queue, message, tag, queue, message ...}

local asked = cjson.decode(ARGV[2])
local now = clock()
local taken, soonest, room = {}, -1, asked.room
-- The longest for which a queue with work is not looked at, in ms.
local LONGEST_MS = 1000

local function look_again_in(ms)
  if soonest < 0 or ms < soonest then soonest = ms end
end

-- The endpoint's id and the class of a queue; a queue without a lane has neither.
local function parse(queue)
  if string.sub(queue, 1, #asked.lane_queue) ~= asked.lane_queue then return nil end
  return string.match(string.sub(queue, #asked.lane_queue + 1), '^(.+)%.(%a+)$')
end

-- Milliseconds until the queue's lane may send; 0: now.
local function wait_of(queue)
  local id, class = parse(queue)
  if not id or class == 'operations' then return 0 end
  local quota = redis.call('HGET', KEYS[4], id)
  if not quota then return 0 end
  local lane = glance_at(string.format(asked.lane, quota))
  -- Interactive callers of a parked lane get an error at once; bulk waits for the operator.
  if fails_at_once(lane, class, now) then return 0 end
  local opens = opens_at(lane, now)
  if not opens then return LONGEST_MS end
  if opens > now or state_of(lane, now) == 'probing' then return math.max(0, opens - now) end
  local ahead = math.max(number(lane, 'requests.next_at'), number(lane, 'tokens.next_at')) - now
  local horizon = asked.horizon[class] or 0
  if class == 'bulk' then horizon = horizon + number(lane, 'bulk_credit_ms') end
  return math.max(0, ahead - horizon)
end

local function lease(queue, message)
  local tag = asked.tag .. (#taken / 3 + 1)
  redis.call('ZADD', KEYS[1], now / 1000, tag)
  redis.call('HSET', KEYS[2], tag, '[' .. message .. ', "", ' .. cjson.encode(queue) .. ']')
  redis.call('HSET', KEYS[3], tag, queue)
  taken[#taken + 1], taken[#taken + 2], taken[#taken + 3] = tag, queue, message
end

-- Take what may be taken of one queue. Returns whether it has none left.
local function take_from(queue, list, index)
  local _, class = parse(queue)
  local allowed = asked.allowances[queue] or asked.allowance[class or ''] or room
  local wait = wait_of(queue)
  if wait > 0 then
    if redis.call('EXISTS', list) == 0 then return true end
    wait = math.min(wait, LONGEST_MS)
    if index then redis.call('ZADD', index, now + wait, queue) end
    look_again_in(wait)
    return false
  end
  local last = math.min(allowed, room - #taken / 3)
  for _ = 1, last do
    local message = redis.call('RPOP', list)
    if not message then return true end
    lease(queue, message)
  end
  if redis.call('EXISTS', list) == 0 then return true end
  -- Behind the others with work, so that each has its turn.
  if index then redis.call('ZADD', index, now, queue) end
  look_again_in(0)
  return false
end

local function is_list(key)
  local kind = redis.call('TYPE', key).ok
  return kind == 'list' or kind == 'none'
end

local function visit(queue, index)
  local list = asked.prefix .. queue
  if not is_list(list) or take_from(queue, list, index) then
    if index then redis.call('ZREM', index, queue) end
  end
end

-- A queue of which nothing may be taken now goes behind the others, or many such would hide those that are further down.
local function pass_over(queue, index, foreign)
  if redis.call('EXISTS', asked.prefix .. queue) == 0 then
    redis.call('ZREM', index, queue)
    return
  end
  redis.call('ZADD', index, now, queue)
  if not foreign then look_again_in(0) end
end

if asked.only then
  for _, queue in ipairs(asked.only) do
    if #taken / 3 < room then visit(queue, nil) end
  end
else
  for i = 5, #KEYS do
    for _, queue in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, 64)) do
      if #taken / 3 >= room then break end
      local allowed = asked.allowances[queue]
      if allowed and allowed <= 0 then
        pass_over(queue, KEYS[i], allowed < 0)
      else
        visit(queue, KEYS[i])
      end
    end
    local later = redis.call('ZRANGEBYSCORE', KEYS[i], string.format('(%.17g', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then look_again_in(math.max(1, tonumber(later[2]) - now)) end
  end
end
return {tostring(math.ceil(soonest)), unpack(taken)}
