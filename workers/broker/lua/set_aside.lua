-- Set a message in flight aside until it is due: from "unacknowledged" to "due" in one step, so that a worker that
-- dies at any moment loses nothing.
--
-- KEYS[1] unacked index, KEYS[2] unacked hash, KEYS[3] holder hash (all as in take.lua)
-- KEYS[4] due        sorted set: "tag queue" by the time at which it is due, in milliseconds of the server's clock
-- KEYS[5] messages   hash: "tag queue" by message
-- ARGV[1] delivery tag, ARGV[2] "tag queue" from now on, ARGV[3] the message as it shall stand on the queue, ARGV[4] ms
-- Returns 1; 0 where the message is no longer in flight: its lease ran out, and somebody else has it.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local t = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[4], t[1] * 1000 + t[2] / 1000 + tonumber(ARGV[4]), ARGV[2])
return 1
