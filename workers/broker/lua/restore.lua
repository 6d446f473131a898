-- Put a message whose lease ran out (or that is handed back) on its queue again, as the next to be taken.
-- include: lanes/clock
--
-- KEYS[1] lease index, KEYS[2] leased messages, KEYS[3] holders, KEYS[4] queue
-- ARGV[1] clock, ARGV[2] delivery tag, ARGV[3] the message as it shall stand on the queue, ARGV[4] the lease's score as it
-- was read ("" for any)
-- Returns 1; 0 where somebody else has it, or has put it back, or the queue's key is no list: then its lease runs anew.
local score = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not score or (ARGV[4] ~= '' and tonumber(score) ~= tonumber(ARGV[4])) then return 0 end
local kind = redis.call('TYPE', KEYS[4]).ok
if kind ~= 'list' and kind ~= 'none' then
  redis.call('ZADD', KEYS[1], clock() / 1000, ARGV[2])
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('RPUSH', KEYS[4], ARGV[3])
return 1
