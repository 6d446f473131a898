-- Have a turn that one process has at a time, or keep it: until so long after it last said so.
-- include: lanes/clock
--
-- KEYS[1] the turn: "process, ms at which it ends"
-- ARGV[1] clock, ARGV[2] process, ARGV[3] ms for which it is kept
-- Returns 1: yours; 0: another one has it.
local now, kept = clock(), tonumber(ARGV[3])
local holder, ends = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+)$')
local left = holder and tonumber(ends) - now or 0
-- An end further away than it is kept was written before the clock was set back.
if holder and holder ~= ARGV[2] and left > 0 and left <= kept then return 0 end
redis.call('SET', KEYS[1], string.format('%s %.3f', ARGV[2], now + kept), 'EX', 3600)
return 1
