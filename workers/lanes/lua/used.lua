-- What the last minute used. A field a second, modulo 64: "second requests tokens refused accepted charged", where
-- requests and tokens are what was reserved, accepted and charged what came of it.
-- include: lanes/fields

local COLUMNS = {requests = 2, tokens = 3, refused = 4, accepted = 5, charged = 6}
local ACCEPTED = {requests = 'accepted', tokens = 'charged'}

-- The row of a second, from its field; nil where the field is of another second.
local function row_of(second, field)
  if not field then return nil end
  local row = {string.match(field, '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')}
  return tonumber(row[1]) == second and row or nil
end

local counted = {}
local function count(column, n) counted[column] = (counted[column] or 0) + n end

-- Write what this operation counted.
local function save_counts()
  if not next(counted) then return end
  local second = math.floor(now / 1000)
  local name = tostring(second % 64)
  local row = row_of(second, redis.call('HGET', used_key, name))
  local fresh = not row
  if fresh then row = {second, 0, 0, 0, 0, 0} end
  for column, n in pairs(counted) do row[COLUMNS[column]] = text_of(row[COLUMNS[column]] + n) end
  redis.call('HSET', used_key, name, table.concat(row, ' '))
  if fresh then redis.call('PEXPIRE', used_key, 120000) end
  counted = {}
end

-- Sums over the last so many seconds: of the oldest one, as much as the newest lacks.
local function lately(seconds)
  save_counts()
  local newest, names, sums = math.floor(now / 1000), {}, {}
  for age = 0, seconds do names[age + 1] = tostring((newest - age) % 64) end
  local fields = redis.call('HMGET', used_key, unpack(names))
  for column in pairs(COLUMNS) do sums[column] = 0 end
  for age = 0, seconds do
    local row = row_of(newest - age, fields[age + 1] or nil)
    local part = age == seconds and 1 - (now / 1000 - newest) or 1
    if row then
      for column, i in pairs(COLUMNS) do sums[column] = sums[column] + part * row[i] end
    end
  end
  return sums
end
