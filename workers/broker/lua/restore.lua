-- Put messages whose leases ran out (or that are handed back) on their queues again, as the next to be taken. Many at
-- once, for the leases of others are renewed only when this is done.
-- include: lanes/clock
-- include: broker/lease
--
-- KEYS[1] lease index, KEYS[2] leased messages, KEYS[3] holders, KEYS[4..] of each message its queue
-- ARGV[1] clock, then of each message: its delivery tag, the message as it shall stand on the queue, the lease's score as
-- it was read ("" for any)
-- Returns for each 1; 0 where somebody else has it, or has put it back, or the queue's key is no list: then its lease
-- runs anew.
local function restore(queue, tag, message, seen)
  local score = redis.call('ZSCORE', KEYS[1], tag)
  if not score or (seen ~= '' and tonumber(score) ~= tonumber(seen)) then return 0 end
  local kind = redis.call('TYPE', queue).ok
  if kind ~= 'list' and kind ~= 'none' then
    redis.call('ZADD', KEYS[1], clock() / 1000, tag)
    return 0
  end
  end_lease(tag)
  redis.call('RPUSH', queue, message)
  return 1
end

local done = {}
for n = 1, #KEYS - 3 do
  done[n] = restore(KEYS[n + 3], ARGV[3 * n - 1], ARGV[3 * n], ARGV[3 * n + 1])
end
return done
