local now = now_ms(ARGV[1])
local prefix, base, group, consumer, session = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local c = open_channel(base)
if not c then
  return {'no channel'}
end
if redis.call('HEXISTS', base .. ':groups', group) == 0 then
  return {'no group', -1, 0, c.incarnation, c.last, 0}
end
local g = open_group(base, group)
local found, more, recreated = fetch(c, g, consumer, now, tonumber(ARGV[7]), tonumber(ARGV[8]))
if more then
  ring(prefix, base, 1, group)
elseif ARGV[9] == '1' then
  redis.call('SADD', base .. ':waiting', session .. '\n' .. group)
end
return {'ok', wake_due(g, now, 0), more and 1 or 0, c.incarnation, c.last, recreated, found}
