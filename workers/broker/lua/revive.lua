-- Put a dead message on its queue again, behind those that wait there. Of two who do so at once, one does.
--
-- KEYS[1] dead messages (list), KEYS[2] queue   ARGV[1] clock, ARGV[2] the entry, ARGV[3] the message
-- Returns 1; 0 where it is no longer among the dead, -1 where the queue's key is no list.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'list' and kind ~= 'none' then return -1 end
if redis.call('LREM', KEYS[1], 1, ARGV[2]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[3])
return 1
