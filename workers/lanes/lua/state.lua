-- The arrows of the table in states.py: what each event does to a lane's state, and to the pause beside it. (Success is
-- in feedback.lua, the refusal in refusal.lua.)
-- include: lanes/answer

local function cool_until(time) set('cooldown_until', math.max(num('cooldown_until'), time)) end

local function probe()
  set('state', 'probing')
  set('probe_until', 0)
end

-- fail threshold rest_ms: an attempt to which the server gave no good answer; many in a row rest the lane.
local function fail()
  set('failures_in_a_row', num('failures_in_a_row') + 1)
  if num('failures_in_a_row') % arg('threshold') == 0 then
    cool_until(now + arg('rest_ms'))
    signal_workers()
  end
  return answer(GRANTED, 0)
end

-- park why by version: nobody is served until somebody acts. by, version: the endpoint's; a change of it is an act.
local function park()
  set('state', 'parked')
  set('why', argument.why)
  set('parked_by', argument.by)
  set('parked_version', argument.version)
  set('since', now)
  signal_workers()
  return answer(GRANTED, 0)
end

-- pause why: by a person. The state stays as it is, and its reason.
local function pause()
  set('paused', '1')
  set('pause_why', argument.why)
  set('paused_since', now)
  signal_workers()
  return answer(GRANTED, 0)
end

-- resume: by a person. Ends a pause; a lane that was parked lets one request through; one that cools opens, unless it
-- was the pause that was meant.
local function resume()
  local paused = is_paused(lane)
  local probes = lane.state == 'parked' or lane.state == 'probing'
  set('paused', '')
  set('pause_why', '')
  if probes then probe() end
  if probes or not paused then
    set('cooldown_until', 0)
    set('failures_in_a_row', 0)
  end
  signal_workers()
  return answer(GRANTED, 0)
end

-- endpoint_changed by version: one request may try again, if it was this endpoint that parked the lane.
local function endpoint_changed()
  if lane.state == 'parked' and lane.parked_by == argument.by and lane.parked_version ~= argument.version then
    probe()
    set('parked_version', argument.version)
    signal_workers()
  end
  return answer(GRANTED, 0)
end
