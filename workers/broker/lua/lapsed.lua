-- Tell which leases have run out. Nothing is changed: each is put back by `restore`, if it is still as it was seen here.
-- include: lanes/clock
--
-- KEYS[1] lease index (as in take.lua)
-- ARGV[1] clock, ARGV[2] seconds after its last renewal at which a lease has run out, ARGV[3] most that are told
-- Returns {tag, score, tag, score ...}
local before = clock() / 1000 - tonumber(ARGV[2])
return redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.17g', before), 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
