-- What is done to a channel now and then. ARGV: clock, prefix, what, base, parameters.

local function channel_main(ARGV)
  local now = now_ms(ARGV[1])
  local prefix, what, base = ARGV[2], ARGV[3], ARGV[4]
  local c = open_channel(base)

  local function set_field(name, value)
    if value == '' then
      redis.call('HDEL', base .. ':meta', name)
    else
      redis.call('HSET', base .. ':meta', name, value)
    end
  end

  -- Ids in the window are sorted by turns of its length.
  local function change_window(before, after)
    local turn = tonumber(redis.call('HGET', base .. ':meta', 'turn') or '')
    if not turn or before == after then
      return
    end
    local following = math.floor(now / after)
    local all = {}
    for i = 0, 2 do
      local key = base .. ':ids:' .. i
      local found = redis.call('HGETALL', key)
      for j = 1, #found do
        all[#all + 1] = found[j]
      end
      redis.call('UNLINK', key)
    end
    sliced(all, function(part)
      redis.call('HSET', base .. ':ids:' .. string.format('%d', following % 3), unpack(part))
    end)
    redis.call('HSET', base .. ':meta', 'turn', string.format('%d', following))
  end

  -- incarnation, then capacity, overflow, window, age, count, bytes ('' each where there is none), default window,
  -- 1 if what is there is to be changed, then the groups that are to have it from its beginning: name, session…
  if what == 'create' then
    local names = {'capacity', 'overflow', 'window', 'age', 'count', 'bytes'}
    local created = redis.call('HSETNX', base .. ':meta', 'incarnation', ARGV[5]) == 1
    if created then
      redis.call('HSET', base .. ':meta', 'last', '0-0')
    end
    if created or ARGV[13] == '1' then
      local default = tonumber(ARGV[12])
      change_window(c and c.window or default, tonumber(ARGV[8]) or default)
      for i, name in ipairs(names) do
        set_field(name, ARGV[5 + i])
      end
    end
    c = open_channel(base)
    new_band(c, 50)
    if created then
      for i = 14, #ARGV, 2 do
        if not c.sessions[ARGV[i]] then -- several of its patterns may cover the channel
          attach(c, ARGV[i], ARGV[i + 1], 'beginning', now)
        end
      end
    elseif ARGV[13] == '1' then
      -- What now holds one kind of messages may hold less, or know their sizes.
      redis.call('HSET', base .. ':meta', 'kept', 0)
      local members = redis.call('ZRANGE', base .. ':idle', 0, -1)
      if #members > 0 and c.bytes then
        redis.call('UNLINK', base .. ':idle')
        for _, member in ipairs(members) do
          keep(c, tonumber(string.sub(member, 41, 43)), {id_of(string.sub(member, 1, 40))}, waits(c, member))
        end
      end
      trim(c, now, 1000)
    end
    return {created and 1 or 0, c.incarnation, mark(c)}
  end

  if not c then
    return {'no channel'}
  end

  -- group, session, start; answers 1 if the group is new here
  if what == 'attach' then
    if c.sessions[ARGV[5]] then
      return {'ok', 0, c.incarnation}
    end
    attach(c, ARGV[5], ARGV[6], ARGV[7], now)
    return {'ok', 1, c.incarnation}
  end

  -- group, start
  if what == 'seek' then
    local session = c.sessions[ARGV[5]]
    if not session then
      return {'no group'}
    end
    drop_group(prefix, c, ARGV[5], 'seek')
    attach(c, ARGV[5], session, ARGV[6], now)
    local more = sweep(c, now, 500)
    ring(prefix, base, 1, ARGV[5])
    return {'ok', more and 1 or 0}
  end

  -- group
  if what == 'leave' then
    if not c.sessions[ARGV[5]] then
      return {'ok', 0}
    end
    drop_group(prefix, c, ARGV[5], 'removed')
    c = open_channel(base)
    local more = sweep(c, now, 500)
    trim(c, now, 1000)
    return {'ok', more and 1 or 0}
  end

  if what == 'remove' then
    for _, group in ipairs({unpack(c.groups)}) do
      drop_group(prefix, c, group, 'removed')
    end
    for _, prio in ipairs(c.bands) do
      redis.call('UNLINK', stream(base, prio))
    end
    for _, name in ipairs({'meta', 'idle', 'sweep', 'waiting', 'ids:0', 'ids:1', 'ids:2'}) do
      redis.call('UNLINK', base .. ':' .. name)
    end
    return {'ok', c.incarnation}
  end

  -- A session is over: its broadcasts too. Its leases are lost, at most some hundred at once. Answers how many those were,
  -- 1 if there is more, and how many of them somebody else has deleted.
  if what == 'reclaim' then
    local session, ended = ARGV[5], ARGV[6] == '1'
    local found, more, gone = 0, false, 0
    for _, group in ipairs({unpack(c.groups)}) do
      local owner = c.sessions[group]
      if owner == session and ended then
        drop_group(prefix, c, group, 'ended')
      else
        local taken, missing = reclaim(prefix, c, open_group(base, group), session, 500)
        found, gone = found + taken, gone + missing
        more = more or taken >= 500
        redis.call('HDEL', base .. ':waiting', session .. '\n' .. group)
        if taken > 0 then
          ring(prefix, base, taken, group)
        end
      end
    end
    more = sweep(c, now, 500) or more
    return {'ok', found, more and 1 or 0, gone}
  end

  -- group, consumer, then priority and id of each: they were held for too long. Answers how many, and how many are gone
  if what == 'expire' then
    local g, expired, gone = open_group(base, ARGV[5]), 0, 0
    for i = 7, #ARGV, 2 do
      if owned(stream(base, tonumber(ARGV[i])), g.name, ARGV[i + 1], ARGV[6]) then
        gone = gone + suspect(c, g, tonumber(ARGV[i]), {ARGV[i + 1]})
        expired = expired + 1
      end
    end
    if expired > 0 then
      take_from(prefix, base, g.name, ARGV[6], 'held')
      ring(prefix, base, expired, g.name)
    end
    return {'ok', expired, gone}
  end

  -- group, then consumer, priority, id of each: answers 1 for each that is still its consumer's
  if what == 'owned' then
    local out = {}
    for i = 6, #ARGV, 3 do
      local mine = c.sessions[ARGV[5]] ~= nil
        and owned(stream(base, tonumber(ARGV[i + 1])), ARGV[5], ARGV[i + 2], ARGV[i])
      out[#out + 1] = mine and 1 or 0
    end
    return {'ok', out}
  end

  -- group, consumer, then the ids that it knows of: the others were handed out by answers that were lost, or go back
  if what == 'recover' then
    local g, known, found = open_group(base, ARGV[5]), {}, 0
    fence(base, ARGV[5], ARGV[6], 'recovered') -- a fetch of that name may still be on its way
    for i = 7, #ARGV do
      known[ARGV[i]] = true
    end
    for _, prio in ipairs(c.bands) do
      local key, from = stream(base, prio), '-'
      local pending = redis.pcall('XPENDING', key, ARGV[5], from, '+', 1000, ARGV[6])
      while not pending.err and #pending > 0 do
        local ids = {}
        for _, each in ipairs(pending) do
          if not known[each[1]] then
            ids[#ids + 1] = each[1]
          end
        end
        if #ids > 0 then
          set_waiting(base, ARGV[5], prio, ids)
          for _, id in ipairs(ids) do
            local entry = redis.call('XRANGE', key, id, id)[1]
            local failed, charged, its, place = tries_of(g, item_of(prio, id))
            set_tries(g, item_of(prio, id), charged and failed - 1 or failed, false, its, place)
            give_back(g, tonumber(prio), id, entry and key_of(entry[2]), place)
          end
          found = found + #ids
        end
        if #pending < 1000 then
          break
        end
        pending = redis.pcall('XPENDING', key, ARGV[5], '(' .. pending[#pending][1], '+', 1000, ARGV[6])
      end
    end
    forget_idle_consumers(c, ARGV[5], string.match(ARGV[6], '^(.*)%.%d+$') or ARGV[6])
    if found > 0 then
      ring(prefix, base, found, ARGV[5])
    end
    return {'ok', found}
  end

  -- group, session, consumer: it is to be handed nothing, for now (rest) or for ever. Answers how often it was.
  if what == 'rest' or what == 'away' then
    local field = ARGV[6] .. '\n' .. ARGV[5]
    local text = redis.call('HGET', base .. ':waiting', field)
    local who = text and note(base, field, text)
    if who and what == 'rest' then
      rest(who)
    elseif who then
      redis.call('HDEL', base .. ':waiting', field)
    end
    if what == 'away' then
      forget_idle_consumers(c, ARGV[5], ARGV[6])
    end
    return {'ok', who and who.consumer == ARGV[7] and who.turn or 0}
  end

  -- A client that has no room passes on what it was told. group
  if what == 'ring' then
    ring(prefix, base, 1, ARGV[5])
    return {'ok'}
  end

  -- Answers 1 if there may be more to do and the sessions whose broadcasts are here.
  if what == 'tidy' then
    local more = sweep(c, now, 500)
    more = trim(c, now, 500) or more
    local sessions = {}
    for _, session in pairs(c.sessions) do
      if session ~= '' then
        sessions[#sessions + 1] = session
      end
    end
    return {'ok', more and 1 or 0, sessions}
  end

  -- depth, stored, rejected, trimmed, then for each group: name, session, unsettled, in flight
  if what == 'stats' then
    local out = {'ok', unsettled(c), stored(c), tonumber(redis.call('HGET', base .. ':meta', 'rejected') or '0'),
      tonumber(redis.call('HGET', base .. ':meta', 'trimmed') or '0')}
    for _, group in ipairs(c.groups) do
      local open, flying = 0, 0
      for _, prio in ipairs(c.bands) do
        local key = stream(base, prio)
        local position = delivered(key, group)
        if position then
          local pending = redis.call('XPENDING', key, group)
          open = open + pending[1]
          for _, each in ipairs(pending[4] or {}) do
            if each[1] ~= WAITING then
              flying = flying + tonumber(each[2])
            end
          end
          open = open + undelivered(c, key, group, position, pending[1])
        end
      end
      out[#out + 1] = group
      out[#out + 1] = c.sessions[group]
      out[#out + 1] = open
      out[#out + 1] = flying
    end
    return out
  end

  return redis.error_reply('ERR unknown operation ' .. what)
end
