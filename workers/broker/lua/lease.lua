-- A message in flight, of a script whose KEYS begin with: lease index, leased messages, holders (as in take.lua).

local function end_lease(tag)
  redis.call('ZREM', KEYS[1], tag)
  redis.call('HDEL', KEYS[2], tag)
  redis.call('HDEL', KEYS[3], tag)
end
