-- What all clients share. ARGV: clock, prefix, what, parameters. Keys of one slot:
--   channels   name -> 1          version   grows with every channel that comes or goes
--   patterns   pattern, group -> session and state: '+' until the channels of that time have been joined
--   gone:<incarnation>  the channel was removed on purpose
--   removed    group, pattern or channel: it was removed on purpose
--   sessions   name -> the server's milliseconds at which it counts as dead
--   reclaimed:<session>:<0, or 1 when it is over>:<those milliseconds>  bases of channels that were looked through for it

local MOST_OVERDUE = 1000 -- sessions that one beat answers

local function registry_main(ARGV)
  local now = now_ms(ARGV[1])
  local prefix, what = ARGV[2], ARGV[3]
  local base = prefix .. ':{registry}'

  -- `names`: what has come, where that is all.
  local function changed(names)
    local version = redis.call('INCR', base .. ':version')
    redis.call('PUBLISH', prefix .. ':bell', 'channels\n' .. version .. (names or ''))
  end

  -- format; answers the format of what is there
  if what == 'open' then
    local kinds = {channels = 'hash', patterns = 'hash', sessions = 'zset', removed = 'hash', version = 'string'}
    for name, kind in pairs(kinds) do
      local found = redis.call('TYPE', base .. ':' .. name).ok
      if found ~= 'none' and found ~= kind then
        return redis.error_reply('WRONGTYPE ' .. base .. ':' .. name .. ' is a ' .. found .. ', not a ' .. kind)
      end
    end
    redis.call('SET', base .. ':format', ARGV[4], 'NX')
    return redis.call('GET', base .. ':format')
  end

  -- names…; answers the patterns and who they are of
  if what == 'add' then
    local added = ''
    for i = 4, #ARGV do
      if redis.call('HSETNX', base .. ':channels', ARGV[i], 1) == 1 then
        added = added .. '\n' .. ARGV[i]
      end
    end
    if added ~= '' then
      changed(added)
    end
    return redis.call('HGETALL', base .. ':patterns')
  end

  -- channel, its incarnation: it was removed on purpose, so that its absence is no loss
  if what == 'drop' then
    redis.call('SET', base .. ':gone:' .. ARGV[5], 1, 'EX', 7 * 86400)
    if redis.call('HDEL', base .. ':channels', ARGV[4]) == 1 then
      changed()
    end
    return {}
  end

  if what == 'gone' then
    return redis.call('EXISTS', base .. ':gone:' .. ARGV[4])
  end

  -- pattern, group of each; answers 1 for each that is known
  if what == 'subscribed' then
    local out = {}
    for i = 4, #ARGV, 2 do
      out[#out + 1] = redis.call('HEXISTS', base .. ':patterns', ARGV[i] .. '\n' .. ARGV[i + 1])
    end
    return out
  end

  if what == 'channels' then
    return redis.call('HKEYS', base .. ':channels')
  end

  -- session, then pattern, group, start of each; answers for each 1 if the channels of now are to be joined, and all channels
  if what == 'subscribe' then
    local states = {}
    for i = 5, #ARGV, 3 do
      local field = ARGV[i] .. '\n' .. ARGV[i + 1]
      local value = redis.call('HGET', base .. ':patterns', field)
      if not value then
        value = '+' .. ARGV[4] .. '\n' .. ARGV[i + 2]
        redis.call('HSET', base .. ':patterns', field, value)
      end
      states[#states + 1] = value
      redis.call('HDEL', base .. ':removed', ARGV[i + 1] .. '\n' .. ARGV[i])
    end
    return {states, redis.call('HKEYS', base .. ':channels')}
  end

  -- session, then pattern, group of each: the channels have been joined
  if what == 'joined' then
    for i = 5, #ARGV, 2 do
      redis.call('HSET', base .. ':patterns', ARGV[i] .. '\n' .. ARGV[i + 1], '=' .. ARGV[4])
    end
    return {}
  end

  -- group: a broadcast is over; answers the channels
  if what == 'left' then
    for _, field in ipairs(redis.call('HKEYS', base .. ':patterns')) do
      if string.match(field, '^[^\n]*\n(.*)$') == ARGV[4] then
        redis.call('HDEL', base .. ':patterns', field)
      end
    end
    return redis.call('HKEYS', base .. ':channels')
  end

  -- group, and a pattern or ''; answers the channels
  if what == 'forget' then
    local found = redis.call('HKEYS', base .. ':patterns')
    for _, field in ipairs(found) do
      local pattern, group = string.match(field, '^([^\n]*)\n(.*)$')
      if group == ARGV[4] and (ARGV[5] == '' or pattern == ARGV[5]) then
        redis.call('HDEL', base .. ':patterns', field)
        redis.call('HSET', base .. ':removed', group .. '\n' .. pattern, 1)
      end
    end
    if ARGV[5] ~= '' then
      redis.call('HSET', base .. ':removed', ARGV[4] .. '\n' .. ARGV[5], 1)
    end
    return redis.call('HKEYS', base .. ':channels')
  end

  -- group, pattern, channel: whether somebody has removed it, so that its absence is no loss
  if what == 'removed' then
    return redis.call('HEXISTS', base .. ':removed', ARGV[4] .. '\n' .. ARGV[5])
      + redis.call('HEXISTS', base .. ':removed', ARGV[4] .. '\n' .. ARGV[6])
  end

  -- session, lease, 1 for a new one; answers if it was known, the version of the channels, and the sessions that are overdue
  if what == 'beat' then
    -- If nobody has been heard for a while, it was the server that was away: that is nobody's fault.
    local before = redis.call('GET', base .. ':beaten')
    local gap = before and now - tonumber(before) or 0
    if gap > tonumber(ARGV[5]) / 2 then
      local all = redis.call('ZRANGE', base .. ':sessions', 0, -1, 'WITHSCORES')
      for i = 1, #all, 2 do
        redis.call('ZADD', base .. ':sessions', tonumber(all[i + 1]) + gap, all[i])
      end
    end
    redis.call('SET', base .. ':beaten', now)
    local known = redis.call('ZSCORE', base .. ':sessions', ARGV[4])
    if known or ARGV[6] == '1' then
      redis.call('ZADD', base .. ':sessions', now + tonumber(ARGV[5]), ARGV[4])
    end
    -- Where very many are overdue, the latest have something in flight, and the oldest are to be forgotten.
    local overdue, sessions = {}, base .. ':sessions'
    for _, found in ipairs({
      redis.call('ZRANGE', sessions, now, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, MOST_OVERDUE / 2, 'WITHSCORES'),
      redis.call('ZRANGE', sessions, '-inf', now, 'BYSCORE', 'LIMIT', 0, MOST_OVERDUE / 2, 'WITHSCORES'),
    }) do
      for i = 1, #found, 2 do
        overdue[#overdue + 1] = found[i]
        overdue[#overdue + 1] = now - tonumber(found[i + 1])
      end
    end
    return {known and 1 or 0, tonumber(redis.call('GET', base .. ':version') or '0'), overdue}
  end

  -- Of a session that has fallen silent, and not been heard since.
  local function reclaimed(session, ended)
    local dead = redis.call('ZSCORE', base .. ':sessions', session)
    return dead and tonumber(dead) <= now and base .. ':reclaimed:' .. session .. ':' .. ended .. ':' .. dead
  end

  -- session, 1 if it is over, then bases; answers those that nobody has looked through for it, or nil if it lives or is gone
  if what == 'unclaimed' then
    local key, left = reclaimed(ARGV[4], ARGV[5]), {}
    for i = 6, #ARGV do
      if key and redis.call('HEXISTS', key, ARGV[i]) == 0 then
        left[#left + 1] = ARGV[i]
      end
    end
    return key and left
  end

  -- session, 1 if it is over, milliseconds until somebody does it again, then bases that were looked through
  if what == 'reclaimed' then
    local key = reclaimed(ARGV[4], ARGV[5])
    for i = 7, #ARGV do
      if key then
        redis.call('HSET', key, ARGV[i], 1)
        redis.call('PEXPIRE', key, ARGV[6])
      end
    end
    return {}
  end

  if what == 'sessions' then
    return redis.call('ZRANGE', base .. ':sessions', 0, -1)
  end

  -- A session that has left, or whose channels have all been looked through.
  if what == 'end' then
    redis.call('ZREM', base .. ':sessions', ARGV[4])
    local found = redis.call('HGETALL', base .. ':patterns')
    for i = 1, #found, 2 do
      local session = string.match(found[i + 1], '^.([^\n]*)')
      if session == ARGV[4] then
        redis.call('HDEL', base .. ':patterns', found[i])
      end
    end
    return {}
  end

  return redis.error_reply('ERR unknown operation ' .. what)
end
