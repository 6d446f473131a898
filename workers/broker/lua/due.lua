-- Put messages that are due on their queues, as the next to be taken. One whose queue's key is no list waits on: an
-- error here would hold up all the others.
-- include: lanes/clock
--
-- KEYS[1] due, KEYS[2] messages (both as in set_aside.lua)
-- ARGV[1] clock, ARGV[2] prefix of all keys, ARGV[3] most messages at once
-- The queues' names come from the set itself, so they cannot be among the keys; kombu's brokers are no clusters.
-- Returns the queues that got one.
local now = clock()
local ripe = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))
local queues = {}
-- Until a queue whose key is no list is tried again, in ms.
local AGAIN_MS = 1000

local function is_list(key)
  local kind = redis.call('TYPE', key).ok
  return kind == 'list' or kind == 'none'
end

for _, member in ipairs(ripe) do
  local message = redis.call('HGET', KEYS[2], member)
  local queue = string.match(member, '^%S+ (.+)$')
  if message and not is_list(ARGV[2] .. queue) then
    redis.call('ZADD', KEYS[1], now + AGAIN_MS, member)
  else
    redis.call('ZREM', KEYS[1], member)
    redis.call('HDEL', KEYS[2], member)
    if message then
      redis.call('RPUSH', ARGV[2] .. queue, message)
      queues[#queues + 1] = queue
    end
  end
end
return queues
