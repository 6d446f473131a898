-- All operations on a lane but `reserve`, each one atomic: runs the one that ARGV[2] names.
-- include: lanes/refusal

-- look <d>.configured: the lane as operators see it; names and values.
local function look()
  local minute = lately(60)
  return {
    'state', state_of(lane, now), 'why', lane.why or '',
    'paused', is_paused(lane) and 1 or 0, 'pause_why', lane.pause_why or '',
    'cooling_ms', text_of(math.max(0, num('cooldown_until') - now)),
    'requests', text_of(minute.requests), 'tokens', text_of(minute.tokens), 'rate_limited', text_of(minute.refused),
    'requests_limit', text_of(in_force('requests')), 'tokens_limit', text_of(in_force('tokens')),
    'operations', redis.call('ZCOUNT', flight_key, now, '+inf'),
  }
end

-- release lease: an operation in flight has ended.
local function release()
  redis.call('ZREM', flight_key, argument.lease)
  return answer(GRANTED, 0)
end

local operations = {
  release = release, report = report, refuse = refuse, learn = learn, fail = fail,
  park = park, pause = pause, resume = resume, endpoint_changed = endpoint_changed, look = look,
}
return operations[ARGV[2]]()
