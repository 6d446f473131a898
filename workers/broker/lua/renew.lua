-- Renew the leases of messages in flight, by the server's clock. A lease that is gone stays gone.
-- include: lanes/clock
--
-- KEYS[1] unacked index; ARGV[1] clock, ARGV[2..] delivery tags. Returns how many were renewed.
local now, renewed = clock() / 1000, 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], now, ARGV[i])
    renewed = renewed + 1
  end
end
return renewed
