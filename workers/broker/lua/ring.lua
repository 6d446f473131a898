-- Tell that queues have work, and wake a worker for each. Queues that hold nothing are left out.
-- include: lanes/clock
--
-- KEYS[1..3] indexes of queues with work: interactive, bulk, with suspects (for which no bell is rung: they have time)
-- KEYS[4] the bell that workers of all lanes wait on
-- ARGV[1] clock, ARGV[2] prefix of all keys, ARGV[3] what a queue's own bell begins with, ARGV[4] most rings that a bell keeps
-- ARGV[5..] queues
-- Returns how many have work.
local rung = 0
-- Seconds for which a bell that nobody waits on is kept.
local KEPT_S = 60
local function ring(bell)
  redis.call('LPUSH', bell, 1)
  redis.call('LTRIM', bell, 0, tonumber(ARGV[4]) - 1)
  redis.call('EXPIRE', bell, KEPT_S)
end
local now = clock()
for i = 5, #ARGV do
  local queue = ARGV[i]
  if redis.call('EXISTS', ARGV[2] .. queue) == 1 then
    rung = rung + 1
    if string.match(queue, ':suspects$') then
      redis.call('ZADD', KEYS[3], 'NX', now, queue)
    else
      redis.call('ZADD', string.match(queue, '%.bulk$') and KEYS[2] or KEYS[1], 'NX', now, queue)
      ring(KEYS[4])
      ring(ARGV[3] .. queue)
    end
  end
end
return rung
