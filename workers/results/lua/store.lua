-- Store results, and tell those who wait for them. KEYS: of results; ARGV[1] clock, ARGV[2..]: for each its value, and
-- the seconds for which it is kept, 0 for ever.
for n, key in ipairs(KEYS) do
  local value, expires_s = ARGV[2 * n], tonumber(ARGV[2 * n + 1])
  if expires_s > 0 then
    redis.call('SET', key, value, 'EX', expires_s)
  else
    redis.call('SET', key, value)
  end
  redis.call('PUBLISH', key, value)
end
