-- Whose turn it is to do what one worker does for all: his who asks first, once in so long.
-- include: lanes/clock
--
-- KEYS[1] the time of the last turn, in ms
-- ARGV[1] clock, ARGV[2] ms from one turn to the next at least
-- Returns 1: yours; 0: somebody had it.
local now, period = clock(), tonumber(ARGV[2])
local last = tonumber(redis.call('GET', KEYS[1]) or 0)
-- A turn in the future was taken before the clock was set back.
if last <= now and now - last < period then return 0 end
redis.call('SET', KEYS[1], string.format('%.3f', now), 'EX', 3600)
return 1
