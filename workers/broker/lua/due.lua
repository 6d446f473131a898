-- Put messages that are due on their queues, as the next to be taken.
--
-- KEYS[1] due, KEYS[2] messages (both as in set_aside.lua)
-- ARGV[1] prefix of all keys, ARGV[2] most messages at once
-- The queues' names come from the set itself, so they cannot be among the keys; kombu's brokers are no clusters.
-- Returns the queues that got one.
local t = redis.call('TIME')
local ripe = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + t[2] / 1000, 'LIMIT', 0, tonumber(ARGV[2]))
local queues = {}
for _, member in ipairs(ripe) do
  local message = redis.call('HGET', KEYS[2], member)
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
  if message then
    local queue = string.match(member, '^%S+ (.+)$')
    redis.call('RPUSH', ARGV[1] .. queue, message)
    queues[#queues + 1] = queue
  end
end
return queues
