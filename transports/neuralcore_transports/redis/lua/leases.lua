-- Leases that end against their owner's will, and what is counted.

-- Ready again, in their old places, and suspect: one of them may be what killed their owner. Answers how many of them
-- somebody else has deleted.
local function suspect(c, g, prio, ids)
  local gone = 0
  set_waiting(c.base, g.name, prio, ids)
  for _, id in ipairs(ids) do
    local item = item_of(prio, id)
    local failed, _, _, place = tries_of(g, item)
    set_tries(g, item, failed, false, true, place)
    local found = redis.call('XRANGE', stream(c.base, prio), id, id)
    if found[1] then
      give_back(g, prio, id, key_of(found[1][2]), place)
    else
      redis.call('XACK', stream(c.base, prio), g.name, id)
      forget_gone(g, item)
      redis.call('HINCRBY', c.base .. ':meta', 'trimmed', 1)
      gone = gone + 1
    end
  end
  return gone
end

-- Consumers of a session that have nothing in flight; one that fetches is made again.
local function forget_idle_consumers(c, group, session)
  for _, prio in ipairs(c.bands) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream(c.base, prio), group)
    for _, info in ipairs(consumers.err and {} or consumers) do
      if info[4] == 0 and string.sub(info[2], 1, #session + 1) == session .. '.' then
        redis.call('XGROUP', 'DELCONSUMER', stream(c.base, prio), group, info[2])
      end
    end
  end
end

-- Take what a session's consumers have, at most `limit`; how many that were, and how many of them are gone.
local function reclaim(prefix, c, g, session, limit)
  local taken, gone = 0, 0
  for _, prio in ipairs(c.bands) do
    local key = stream(c.base, prio)
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, g.name)
    if not consumers.err then
      for _, info in ipairs(consumers) do
        local name, pending = info[2], info[4]
        if string.sub(name, 1, #session + 1) == session .. '.' then
          if pending > 0 and taken < limit then
            local ids = {}
            for _, each in ipairs(redis.call('XPENDING', key, g.name, '-', '+', limit - taken, name)) do
              ids[#ids + 1] = each[1]
            end
            gone = gone + suspect(c, g, prio, ids)
            taken = taken + #ids
            pending = pending - #ids
            take_from(prefix, c.base, g.name, name, 'expired')
          end
          if pending == 0 then
            redis.call('XGROUP', 'DELCONSUMER', key, g.name, name)
          end
        end
      end
    end
  end
  return taken, gone
end

-- Entries behind a group's position. Where nobody else keeps any, what is stored is pending or undelivered. Redis counts
-- right but for entries that were deleted before they were delivered, as a bounded channel may do.
local function undelivered(c, key, group, position, pending)
  if #c.groups == 1 and redis.call('ZCARD', c.base .. ':idle') == 0 then
    return redis.call('XLEN', key) - pending
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local found = {}
    for i = 1, #info, 2 do
      found[info[i]] = info[i + 1]
    end
    if found.name == group and found.lag and not c.capacity then
      return found.lag
    end
  end
  local count, from = 0, '(' .. id_of(position)
  while true do
    local entries = redis.call('XRANGE', key, from, '+', 'COUNT', 1000)
    count = count + #entries
    if #entries < 1000 then
      return count
    end
    from = '(' .. entries[#entries][1]
  end
end
