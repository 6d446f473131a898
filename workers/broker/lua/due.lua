-- Put messages that are due on their queues, as the next to be taken, and ring the queues' bells.
--
-- KEYS[1] due, KEYS[2] messages (both as in set_aside.lua)
-- ARGV[1] prefix of queues, ARGV[2] prefix of bells, ARGV[3] most messages at once, ARGV[4] rings that a bell keeps
-- The queues' names come from the set itself, so they cannot be among the keys: a cluster would refuse that, and none is served.
-- Returns how many were put.
local t = redis.call('TIME')
local ripe = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + t[2] / 1000, 'LIMIT', 0, tonumber(ARGV[3]))
for _, member in ipairs(ripe) do
  local message = redis.call('HGET', KEYS[2], member)
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
  if message then
    local queue = string.match(member, '^%S+ (.+)$')
    redis.call('RPUSH', ARGV[1] .. queue, message)
    local bell = ARGV[2] .. queue
    redis.call('LPUSH', bell, 1)
    redis.call('LTRIM', bell, 0, tonumber(ARGV[4]) - 1)
  end
end
return #ripe
