-- Tell that queues have work, and wake a worker for each. Queues that hold nothing are left out.
--
-- KEYS[1..3] indexes of queues with work: interactive, bulk, with suspects (for which no bell is rung: they have time)
-- KEYS[4] the bell that workers of all lanes wait on
-- ARGV[1] prefix of all keys, ARGV[2] what a queue's own bell begins with, ARGV[3] most rings that a bell keeps
-- ARGV[4..] queues
-- Returns how many have work.
local rung = 0
-- Seconds for which a bell that nobody waits on is kept.
local KEPT_S = 60
local function ring(bell)
  redis.call('LPUSH', bell, 1)
  redis.call('LTRIM', bell, 0, tonumber(ARGV[3]) - 1)
  redis.call('EXPIRE', bell, KEPT_S)
end
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
for i = 4, #ARGV do
  local queue = ARGV[i]
  if redis.call('EXISTS', ARGV[1] .. queue) == 1 then
    rung = rung + 1
    if string.match(queue, ':suspects$') then
      redis.call('ZADD', KEYS[3], 'NX', now, queue)
    else
      redis.call('ZADD', string.match(queue, '%.bulk$') and KEYS[2] or KEYS[1], 'NX', now, queue)
      ring(KEYS[4])
      ring(ARGV[2] .. queue)
    end
  end
end
return rung
