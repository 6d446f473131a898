-- Set a message in flight aside until it is due: from "unacknowledged" to "due" in one step, so that a worker that
-- dies at any moment loses nothing.
-- include: lanes/clock
-- include: broker/lease
--
-- KEYS[1] unacked index, KEYS[2] unacked hash, KEYS[3] holder hash (all as in take.lua)
-- KEYS[4] due        sorted set: "tag queue" by the time at which it is due, in milliseconds of the server's clock
-- KEYS[5] messages   hash: "tag queue" by message
-- ARGV[1] clock, ARGV[2] delivery tag, ARGV[3] "tag queue" from now on, ARGV[4] the message as it shall stand on the queue,
-- ARGV[5] ms
-- Returns 1; 0 where the message is no longer in flight: its lease ran out, and somebody else has it.
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 0 end
end_lease(ARGV[2])
redis.call('HSET', KEYS[5], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[4], clock() + tonumber(ARGV[5]), ARGV[3])
return 1
