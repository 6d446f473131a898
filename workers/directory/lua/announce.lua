-- A worker says that it is alive, and which endpoints its file has.
-- include: lanes/clock
--
-- KEYS[1] announcements (sorted set: an endpoint's id, or '' for the worker itself, by when it was last announced, in ms)
-- ARGV[1] clock, ARGV[2] ms for which an announcement holds, ARGV[3..] ids
local now, holds = clock(), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - holds)
-- One in the future was made before the clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.17g', now), '+inf')
redis.call('ZADD', KEYS[1], now, '')
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], 2 * holds)
