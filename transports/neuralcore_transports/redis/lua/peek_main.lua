-- ARGV: clock, prefix, base, group, consumer, session, credit, below, turn, as in a fetch. Answers the priority of what would be
-- handed out, or -1, whereupon the session waits; and the milliseconds until the next comes due or -1.

local function peek_main(ARGV)
  local now = now_ms(ARGV[1])
  local base, group = ARGV[3], ARGV[4]
  local g = open_group(base, group)
  local due = wake_due(g, now, 1000)
  local c = open_channel(base)
  for _, prio in ipairs(c and c.bands or {}) do
    if redis.call('ZCOUNT', g.back, prio, prio) > 0 then
      return {prio, due}
    end
    local position = delivered(stream(base, prio), group)
    if not position then
      return {prio, due} -- a fetch finds out why
    end
    local info = redis.call('XINFO', 'STREAM', stream(base, prio))
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' and rank_of(info[i + 1]) > position then
        return {prio, due}
      end
    end
  end
  local consumer, session = ARGV[5], ARGV[6]
  local turn = turn_of(base, session, group, consumer, tonumber(ARGV[9]))
  wait_here(base, session, group, tonumber(ARGV[7]), tonumber(ARGV[8]), turn, consumer)
  return {-1, due}
end
