-- The clock by which every rule goes. ARGV[1] of every script is the time in ms, as a test or a simulation says it; where
-- it is empty, as always in production, the server's own clock tells it, so that no client's clock decides anything.
-- No rule goes by a key's expiry: that only takes away what nobody needs any more.
local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end
