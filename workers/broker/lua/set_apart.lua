-- Set a message that nobody can read apart: from "in flight" to the dead messages in one step, so that it is in exactly
-- one place whatever dies.
-- include: broker/lease
--
-- KEYS[1] lease index, KEYS[2] leased messages, KEYS[3] holders (as in take.lua), KEYS[4] dead messages (list)
-- ARGV[1] clock, ARGV[2] delivery tag, ARGV[3] the entry, ARGV[4] most entries, ARGV[5] seconds for which they are kept
-- Returns 1; 0 where the message is no longer in flight: its lease ran out, and somebody else has it.
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 0 end
end_lease(ARGV[2])
redis.call('LPUSH', KEYS[4], ARGV[3])
redis.call('LTRIM', KEYS[4], 0, tonumber(ARGV[4]) - 1)
redis.call('EXPIRE', KEYS[4], tonumber(ARGV[5]))
return 1
