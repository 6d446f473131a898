-- Renew the leases of messages in flight, by the server's clock. A lease that is gone stays gone.
-- KEYS[1] unacked index; ARGV delivery tags. Returns how many were renewed.
local t = redis.call('TIME')
local now, renewed = t[1] + t[2] / 1000000, 0
for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], now, ARGV[i])
    renewed = renewed + 1
  end
end
return renewed
