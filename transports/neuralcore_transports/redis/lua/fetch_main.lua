-- ARGV: clock, prefix, base, group, consumer, session, limit, credit, below, how often that consumer was handed something as
-- far as it knows. Whoever gets all there is waits for more. Answers {state, milliseconds until the next comes due or -1,
-- 1 if there may be more, incarnation, mark, what was lost, how often that makes, found}.

local function fetch_main(ARGV)
  local now = now_ms(ARGV[1])
  local prefix, base, group, consumer, session = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
  local c = open_channel(base)
  if not c then
    return {'no channel'}
  end
  if not c.sessions[group] then
    return {'no group', -1, 0, c.incarnation, mark(c), {0, 0}, 0, {}}
  end
  if is_fenced(c, group, consumer) then
    return {'stale', -1, 1, c.incarnation, mark(c), {0, 0}, 0, {}} -- it may have come late, when nobody waits for its answer
  end
  local g = open_group(base, group)
  local found, more, lost, due = fetch(c, g, consumer, now, tonumber(ARGV[7]), tonumber(ARGV[9]))
  local turn = turn_of(base, session, group, consumer, tonumber(ARGV[10])) + 1
  if more then
    redis.call('HDEL', base .. ':waiting', session .. '\n' .. group)
    ring(prefix, base, 1, group)
  else
    wait_here(base, session, group, math.max(0, tonumber(ARGV[8]) - #found), tonumber(ARGV[9]), turn, consumer)
  end
  return {'ok', due, more and 1 or 0, c.incarnation, mark(c), lost, turn, found}
end
