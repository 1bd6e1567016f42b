-- One channel: its configuration, the ids it gives, and what becomes of messages that nobody has left to settle.

local function open_channel(base)
  local m = redis.call('HMGET', base .. ':meta', 'incarnation', 'last', 'capacity', 'overflow', 'window', 'age', 'count', 'bytes',
    'claimed', 'turn', 'bands', 'groups', 'taken', 'ever', 'largest', 'pushes')
  if not m[1] then
    return nil
  end
  local c = {
    base = base, incarnation = m[1], last = m[2], capacity = tonumber(m[3] or ''), overflow = m[4] or 'block',
    window = tonumber(m[5] or ''), age = tonumber(m[6] or ''), count = tonumber(m[7] or ''), bytes = tonumber(m[8] or ''),
    groups = {}, named = false, claimed = m[9] or '', turn = tonumber(m[10] or ''),
    bands = {}, sessions = {}, taken = m[13], ever = tonumber(m[14] or '0'),
    largest = tonumber(m[15] or '0'), pushes = tonumber(m[16] or '0'),
  }
  c.retains = c.age or c.count or c.bytes
  c.before = c.last .. ' ' .. string.format('%d', c.ever)
  for band in string.gmatch(m[11] or '', '%d+') do
    c.bands[#c.bands + 1] = tonumber(band)
  end
  local found = m[12] and cmsgpack.unpack(m[12]) or {}
  for i = 1, #found, 2 do
    c.groups[#c.groups + 1] = found[i]
    c.sessions[found[i]] = found[i + 1]
    c.named = c.named or found[i + 1] == ''
  end
  return c
end

-- `sessions`: for each group the session that it ends with, or ''.
local function save_groups(c)
  local flat = {}
  for _, group in ipairs(c.groups) do
    flat[#flat + 1] = group
    flat[#flat + 1] = c.sessions[group]
  end
  redis.call('HSET', c.base .. ':meta', 'groups', cmsgpack.pack(flat))
end

-- The next id: the server's milliseconds, and a number that keeps the channel's order when its clock does not move on.
local function next_id(c, now)
  if not c.ms then
    local ms, n = string.match(c.last, '^(%d+)%-(%d+)$')
    c.ms, c.n = tonumber(ms), tonumber(n)
  end
  if now > c.ms then
    c.ms, c.n = now, 0
  else
    c.n = c.n + 1
  end
  c.last = string.format('%d-%d', c.ms, c.n)
  c.ever = c.ever + 1
  c.moved = true
  return c.last
end

-- Somebody else has added an entry with a later id.
local function skip_to(c, id)
  c.last, c.ms = id, nil
end

-- What a client remembers, so that it notices when the server has lost something: the last id, and how many there have
-- ever been.
local function mark(c)
  return c.last .. ' ' .. string.format('%d', c.ever)
end

local function save_last(c)
  if c.moved then
    c.pushes = c.pushes + 1
    redis.call('HSET', c.base .. ':meta', 'last', c.last, 'ever', string.format('%d', c.ever),
      'pushes', string.format('%d', c.pushes))
    c.moved = false
  end
end

local function new_band(c, prio)
  for _, band in ipairs(c.bands) do
    if band == prio then
      return
    end
  end
  c.bands[#c.bands + 1] = prio
  table.sort(c.bands) -- most urgent first
  redis.call('HSET', c.base .. ':meta', 'bands', table.concat(c.bands, ' '))
  for _, group in ipairs(c.groups) do
    redis.pcall('XGROUP', 'CREATE', stream(c.base, prio), group, '0', 'MKSTREAM')
  end
end

local function stored(c)
  local total = 0
  for _, prio in ipairs(c.bands) do
    total = total + redis.call('XLEN', stream(c.base, prio))
  end
  return total
end

-- Messages that some group has not settled, or that no group has asked for yet.
local function unsettled(c)
  local unclaimed = tonumber(redis.call('HGET', c.base .. ':meta', 'unclaimed') or '0')
  return stored(c) - redis.call('ZCARD', c.base .. ':idle') + unclaimed
end

-- Where a group stands in a stream: the last entry that it was given.
local function delivered(key, group)
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if groups.err then
    if not string.find(groups.err, 'no such key', 1, true) then
      redis.call('XINFO', 'GROUPS', key) -- the client is to read what is wrong
    end
    return nil
  end
  for _, info in ipairs(groups) do
    local found = {}
    for i = 1, #info, 2 do
      found[info[i]] = info[i + 1]
    end
    if found.name == group then
      return rank_of(found['last-delivered-id'])
    end
  end
  return nil
end

-- Whether all groups but `but` have settled the entry. `positions` remembers where each group stands.
local function settled_by_others(c, prio, id, but, positions)
  for _, group in ipairs(c.groups) do
    if group ~= but then
      local key = stream(c.base, prio)
      local place = key .. '\n' .. group
      if positions[place] == nil then
        positions[place] = delivered(key, group) or ''
      end
      if positions[place] < rank_of(id) or #redis.call('XPENDING', key, group, id, id, 1) > 0 then
        return false
      end
    end
  end
  return true
end

local function size_of(c, prio, id)
  local found = redis.call('XRANGE', stream(c.base, prio), id, id)
  local fields = found[1] and found[1][2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'data' then
      return #fields[i + 1]
    end
  end
  return 0
end

-- Kept by retention, or for a first group: members of `idle` are rank, priority, the size where bytes are counted, and 'w'
-- for one that waits for its first subscriber. Those up to `claimed` wait no more: a group has come since.
local function keep(c, prio, ids, waiting)
  sliced(ids, function(part)
    local args = {c.base .. ':idle'}
    for _, id in ipairs(part) do
      local size = c.bytes and size_of(c, prio, id) or 0
      args[#args + 1] = 0
      args[#args + 1] = rank_of(id) .. string.format('%03d', prio) .. string.format('%d', size) .. (waiting and 'w' or '')
      if size > 0 then
        redis.call('HINCRBY', c.base .. ':meta', 'kept', size)
      end
    end
    redis.call('ZADD', unpack(args))
  end)
end

local function size_in(member)
  return tonumber(string.match(member, '^%d+', 44))
end

local function waits(c, member)
  return string.sub(member, -1) == 'w' and string.sub(member, 1, 40) > c.claimed
end

local function forget_idle(c, members)
  sliced(members, function(part)
    redis.call('ZREM', c.base .. ':idle', unpack(part))
  end)
  if c.bytes then
    local size = 0
    for _, member in ipairs(members) do
      size = size + size_in(member)
    end
    redis.call('HINCRBY', c.base .. ':meta', 'kept', string.format('%d', -size))
  end
  local waited = 0
  for _, member in ipairs(members) do
    waited = waited + (waits(c, member) and 1 or 0)
  end
  if waited > 0 then
    redis.call('HINCRBY', c.base .. ':meta', 'unclaimed', -waited)
  end
end

-- Forget of what is idle the oldest that retention does not keep, at most `limit`; whether there may be more.
local function trim(c, now, limit)
  if not c.retains and not c.named then
    return false
  end
  local oldest = redis.call('ZRANGE', c.base .. ':idle', 0, limit - 1)
  local left = redis.call('ZCARD', c.base .. ':idle')
  local kept = c.bytes and tonumber(redis.call('HGET', c.base .. ':meta', 'kept') or '0') or 0
  local over = {}
  for _, member in ipairs(oldest) do
    local exceeds = not c.retains
      or (c.age and now - tonumber(string.sub(member, 1, 20)) >= c.age)
      or (c.count and left > c.count)
      or (c.bytes and kept > c.bytes)
    if not exceeds then
      break
    end
    redis.call('XDEL', stream(c.base, tonumber(string.sub(member, 41, 43))), id_of(string.sub(member, 1, 40)))
    over[#over + 1] = member
    left = left - 1
    kept = kept - size_in(member)
  end
  if #over > 0 then
    forget_idle(c, over)
  end
  return #over == limit
end

-- A group has settled these of one band: what nobody else wants goes, or is kept by retention.
local function finish(c, prio, ids, group)
  local over = ids
  if #c.groups > 1 or (#c.groups == 1 and c.groups[1] ~= group) then
    local positions = {}
    over = {}
    for _, id in ipairs(ids) do
      if settled_by_others(c, prio, id, group, positions) then
        over[#over + 1] = id
      end
    end
  end
  if #over == 0 then
    return
  end
  if c.retains or not c.named then
    keep(c, prio, over)
    c.kept = true
  else
    sliced(over, function(part)
      redis.call('XDEL', stream(c.base, prio), unpack(part))
    end)
  end
end
