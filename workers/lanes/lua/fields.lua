-- The one lane that an operation is about: its fields, the operation's arguments, and the one write at the end.
-- include: lanes/lane
--
-- KEYS[1]  lane    hash: schedule, learnt limits, cool-down, state
-- KEYS[2]  used    hash: what the last minute used (used.lua)
-- KEYS[3]  flight  sorted set: operations in flight, by the time at which they count as gone
-- ARGV[1]  clock (clock.lua), ARGV[2] operation, ARGV[3] channel for signals, then names and values.
--
-- Times are milliseconds of the server's clock; limits are per minute; 0 stands for "none", and so does no argument.

local lane_key, used_key, flight_key, channel = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
local now = clock()
local lane = read_lane(lane_key)
if is_newer(lane) then return redis.error_reply('NEWERLANE ' .. lane.format) end
local DIMENSIONS = {'requests', 'tokens'}

local argument = {}
for i = 4, #ARGV, 2 do argument[ARGV[i]] = ARGV[i + 1] end

local function arg(name) return tonumber(argument[name]) or 0 end
local function num(field) return tonumber(lane[field]) or 0 end

-- A number as it is stored and told: to a ten-thousandth, whole ones short.
local function text_of(value)
  if type(value) ~= 'number' then return value end
  return string.format(value == math.floor(value) and '%.0f' or '%.4f', value)
end

local changed = {}
local function set(field, value)
  local text = text_of(value)
  if lane[field] == text then return end
  lane[field] = text
  changed[field] = text
end

local function save()
  if not next(changed) then return end
  if not lane.format then set('format', FORMAT) end
  local list = {}
  for field, value in pairs(changed) do
    list[#list + 1] = field
    list[#list + 1] = value
  end
  redis.call('HSET', lane_key, unpack(list))
  -- What a person or a refusal ended stays so, however long nothing comes of the lane.
  if lane.state == 'parked' or is_paused(lane) then
    redis.call('PERSIST', lane_key)
  else
    redis.call('PEXPIRE', lane_key, 30 * 86400000)
  end
  changed = {}
end

-- Signal all workers to look at the lane.
local function signal_workers()
  save()
  redis.call('PUBLISH', channel, lane_key)
end
