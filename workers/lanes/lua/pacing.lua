-- The schedule (GCRA): <d>.next_at is the earliest time at which the next request may be sent, or its tokens.
-- include: lanes/feedback

-- Take a place on the schedule of requests. Returns the ms that it takes.
local function place_request(limit, at)
  if num('refusals_in_a_row') > 0 then
    local REOPEN_MS = 500 -- the server refuses all: one request in so many ms asks whether it has opened
    set('requests.next_at', at + REOPEN_MS)
    return REOPEN_MS
  end
  if limit <= 0 then return 0 end
  local step = 60000 / limit
  -- On a learnt limit nothing is caught up: what was learnt may be that the server allows no burst.
  local late = num('requests.limit') > 0 and 0 or math.min(arg('slack_ms'), step * 4)
  set('requests.next_at', math.max(num('requests.next_at'), at - late) + step)
  return step
end

-- Take a place on the schedule of tokens. Returns the ms that it takes.
local function place_tokens(limit, at)
  if limit <= 0 or arg('tokens') <= 0 then return 0 end
  -- A window of 10 s holds a whole request more than an even share: where that is little, stay clear of it.
  local more = 1.8 * num('mean_tokens') / (limit / 6)
  if more < 0.012 then limit = limit * (1 - more) end
  local step = arg('tokens') * 60000 / limit
  local late = num('tokens.limit') > 0 and 0 or arg('slack_ms')
  set('tokens.next_at', math.max(num('tokens.next_at'), at - late) + step)
  return step
end
