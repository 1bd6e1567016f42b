-- Groups on a channel: where they start, and what is left of them when they go.

-- All entries from `first` on are some group's to settle: they are idle no more.
local function claim_from(c, first)
  local members = redis.call('ZRANGEBYLEX', c.base .. ':idle', '[' .. first, '+')
  if #members > 0 then
    forget_idle(c, members)
  end
end

-- The rank of the first entry that is wanted, by a start: 'beginning', 'new', or a rank of its own.
local function first_wanted(c, start)
  if start == 'beginning' then
    return string.rep('0', 40)
  elseif start == 'new' then
    return string.rep('9', 40)
  end
  return start
end

-- The position that lies right before the first one wanted.
local function position_before(c, first)
  if first > rank_of(c.last) then
    return c.last -- whatever comes is new
  end
  local ms, n = string.match(id_of(first), '^(%d+)%-(%d+)$')
  if ms == '0' and n == '0' then
    return '0-0'
  elseif n == '0' then
    return string.format('%d', tonumber(ms) - 1) .. '-18446744073709551615'
  end
  return ms .. '-' .. string.format('%d', tonumber(n) - 1)
end

local function place_group(c, group, first)
  for _, prio in ipairs(c.bands) do
    local key, position = stream(c.base, prio), position_before(c, first)
    local made = redis.pcall('XGROUP', 'CREATE', key, group, position, 'MKSTREAM')
    if made.err then -- BUSYGROUP: somebody else has made one of its name
      redis.call('XGROUP', 'SETID', key, group, position)
    end
  end
  claim_from(c, first)
end

-- Let a group in; `session` is '' for one that lasts until it is removed. A first group starts at the beginning.
local function attach(c, group, session, start, now)
  if start == '' then
    start = (session ~= '' or c.named) and 'new' or 'beginning'
  end
  place_group(c, group, first_wanted(c, start))
  c.groups[#c.groups + 1] = group
  c.sessions[group] = session
  save_groups(c)
  if session == '' then
    c.named = true
    c.claimed = rank_of(c.last)
    redis.call('HDEL', c.base .. ':meta', 'unclaimed')
    redis.call('HSET', c.base .. ':meta', 'claimed', c.claimed)
    trim(c, now, 1000)
  end
end

-- Whatever it had in flight is lost to its owners. Its entries are to be looked through: nobody may want them now.
local function drop_group(prefix, c, group, reason)
  local told = {}
  for _, prio in ipairs(c.bands) do
    local key = stream(c.base, prio)
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
    if not consumers.err then
      for _, info in ipairs(consumers) do
        if info[2] ~= WAITING and info[4] > 0 and not told[info[2]] then
          told[info[2]] = true
          take_from(prefix, c.base, group, info[2], reason)
        end
      end
      redis.call('XGROUP', 'DESTROY', key, group)
    end
  end
  local g = open_group(c.base, group)
  redis.call('UNLINK', g.back, g.due, g.keys, g.parked, g.tries)
  local session = c.sessions[group]
  c.sessions[group] = nil
  for i, each in ipairs(c.groups) do
    if each == group then
      table.remove(c.groups, i)
      break
    end
  end
  save_groups(c)
  for _, prio in ipairs(c.bands) do
    redis.call('HSET', c.base .. ':sweep', prio, (session == '' and not c.retains) and 'x-' or 'k-')
  end
end

-- Marks of `sweep`: x to delete what nobody wants, k to keep it for a first group or by retention; then where to go on.
-- Look through entries that a group has left behind, at most `limit`: what nobody has left to settle is finished.
-- Whether there may be more.
local function sweep(c, now, limit)
  local left = limit
  local marks = redis.call('HGETALL', c.base .. ':sweep')
  for i = 1, #marks, 2 do
    local prio, mode, from = tonumber(marks[i]), string.sub(marks[i + 1], 1, 1), string.sub(marks[i + 1], 2)
    local entries = redis.call('XRANGE', stream(c.base, prio), from, '+', 'COUNT', left)
    local over, positions = {}, {}
    for _, entry in ipairs(entries) do
      local member = rank_of(entry[1]) .. string.format('%03d', prio)
      local idle = redis.call('ZRANGEBYLEX', c.base .. ':idle', '[' .. member, '(' .. member .. '~', 'LIMIT', 0, 1)
      if #idle == 0 and settled_by_others(c, prio, entry[1], nil, positions) then
        over[#over + 1] = entry[1]
      end
    end
    if #over > 0 then
      if mode == 'x' or (c.named and not c.retains) then
        redis.call('XDEL', stream(c.base, prio), unpack(over))
      else
        keep(c, prio, over)
      end
    end
    if #entries < left then
      redis.call('HDEL', c.base .. ':sweep', marks[i])
    else
      redis.call('HSET', c.base .. ':sweep', marks[i], mode .. '(' .. entries[#entries][1])
    end
    left = left - #entries
    if left <= 0 then
      break
    end
  end
  return redis.call('EXISTS', c.base .. ':sweep') == 1
end
