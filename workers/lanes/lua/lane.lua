-- Reading a lane: for every script that asks whether it may send. The table of its states is workers/lanes/states.py.
-- include: lanes/constants.py
-- include: lanes/format
-- include: lanes/clock

local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end

-- Read a lane, whole.
local function read_lane(key)
  local lane = fields_of(redis.call('HGETALL', key))
  if not lane.format and next(lane) then lane = convert(key, lane) end
  return lane
end

-- What `opens_at` and the schedule ask for: of many lanes only this is read.
local GLANCE = {
  'format', 'state', 'paused', 'cooldown_until', 'probe_until', 'bulk_credit_ms', 'requests.next_at', 'tokens.next_at',
}

-- Read as much of a lane as tells whether it may send.
local function glance_at(key)
  local lane, values = {}, redis.call('HMGET', key, unpack(GLANCE))
  for i, name in ipairs(GLANCE) do lane[name] = values[i] or nil end
  if not lane.format and redis.call('EXISTS', key) == 1 then return read_lane(key) end
  return lane
end

local function number(lane, field) return tonumber(lane[field]) or 0 end

-- Whether a newer version wrote the lane, so that its fields may mean something else.
local function is_newer(lane) return number(lane, 'format') > FORMAT end

-- The state by the clock. Stored are 'parked', 'probing' and '' for the others, which time alone tells apart.
local function state_of(lane, now)
  if lane.state == 'parked' or lane.state == 'probing' then return lane.state end
  return number(lane, 'cooldown_until') > now and 'cooling' or 'open'
end

-- Whether a person holds the lane back: a flag beside the state.
local function is_paused(lane) return lane.paused == '1' end

-- From when on the lane may send, nil: not before somebody acts. A probing lane sends one request at a time.
local function opens_at(lane, now)
  local state = state_of(lane, now)
  if is_newer(lane) or is_paused(lane) or state == 'parked' then return nil end
  local cooled = number(lane, 'cooldown_until')
  return state == 'probing' and math.max(cooled, number(lane, 'probe_until')) or cooled
end

-- Whether callers of this class get an error at once, and do not wait for a person. Bulk work waits.
local function fails_at_once(lane, class, now)
  if class ~= 'interactive' then return false end
  return is_newer(lane) or (state_of(lane, now) == 'parked' and not is_paused(lane))
end
