-- Formats of a lane's hash. What an older version wrote is brought to the names of today, once, at the first touch.
-- include: lanes/constants.py

-- The names of format 1, which has no field 'format', and today's. A function, so that only who needs them makes them.
local function renamed()
  local plain = {
    why = 'why', by = 'parked_by', version = 'parked_version', since = 'since', probe = 'probe_until',
    cool = 'cooldown_until', seq = 'cooldown_number', hit = 'refused_at', fresh = 'accepted_since_refusal',
    streak = 'refusals_in_a_row', closed = 'closed_at', fails = 'failures_in_a_row',
    first = 'awake_since', last = 'measured_from', was = 'measured_before', nudges = 'small_steps',
    mean = 'mean_tokens', owed = 'bulk_credit_ms', saidat = 'header_at',
  }
  local by_dimension = {
    t = 'next_at', e = 'limit', b = 'start', c = 'ceiling', k = 'cut_at', p = 'plateau_s',
    a = 'accepted', w = 'accepted_before', n = 'reserved', said = 'header_limit',
  }
  local letters = {r = 'requests', t = 'tokens'}
  return plain, by_dimension, letters
end

-- Bring a hash of format 1 to today's names, in place. Returns its fields.
local function convert(key, old)
  local plain, by_dimension, letters = renamed()
  local new, list = {format = tostring(FORMAT)}, {}
  for field, value in pairs(old) do
    local stem, letter = string.match(field, '^(%a+)([rt])$')
    if plain[field] then
      new[plain[field]] = value
    elseif by_dimension[stem] then
      new[letters[letter] .. '.' .. by_dimension[stem]] = value
    end
  end
  new.state, new.rough = old.state or '', letters[old.rough] or ''
  if old.state == 'paused' then -- a state then, a flag beside it now
    new.state, new.why, new.paused, new.pause_why = '', '', '1', old.why or ''
  end
  for field, value in pairs(new) do
    list[#list + 1] = field
    list[#list + 1] = value
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(list))
  if new.state ~= 'parked' and not new.paused then redis.call('PEXPIRE', key, 30 * 86400000) end
  return new
end
