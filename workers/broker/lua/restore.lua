-- Put a message whose lease ran out (or that is handed back) on its queue again, as the next to be taken.
--
-- KEYS[1] unacked index, KEYS[2] unacked hash, KEYS[3] holder hash, KEYS[4] queue, KEYS[5] the queue's bell
-- ARGV[1] delivery tag, ARGV[2] the message as it shall stand on the queue, ARGV[3] the lease's score as it was read ("" for any)
-- ARGV[4] rings that a bell keeps
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or (ARGV[3] ~= '' and tonumber(score) ~= tonumber(ARGV[3])) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('RPUSH', KEYS[4], ARGV[2])
redis.call('LPUSH', KEYS[5], 1)
redis.call('LTRIM', KEYS[5], 0, tonumber(ARGV[4]) - 1)
return 1
