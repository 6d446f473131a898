-- Which endpoints the registry or a worker's file has, and whether any worker is alive.
-- include: lanes/clock
--
-- KEYS[1] announcements (announce.lua), KEYS[2] registry (hash: endpoint's id, record)
-- ARGV[1] clock, ARGV[2] ms for which an announcement holds, ARGV[3..] ids
-- Returns {1 if a worker has announced itself, then of each id: 1 if it is known}
local now, holds = clock(), tonumber(ARGV[2])

local function is_announced(id)
  local at = tonumber(redis.call('ZSCORE', KEYS[1], id) or nil)
  return at ~= nil and at <= now and at > now - holds
end

local answer = {is_announced('') and 1 or 0}
for i = 3, #ARGV do
  answer[#answer + 1] = (redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 or is_announced(ARGV[i])) and 1 or 0
end
return answer
