-- Store messages, each once.

local STORED, DUPLICATE, DROPPED, REFUSED, FULL = 1, 2, 3, 4, 5

-- Ids seen in the channel's window, in two hashes that take turns: id -> milliseconds.
local function window_of(c, now, default)
  local span = c.window or default
  local turn = math.floor(now / span)
  return {
    span = span,
    new = c.base .. ':ids:' .. string.format('%d', turn % 3),
    old = c.base .. ':ids:' .. string.format('%d', (turn - 1) % 3),
    stale = c.base .. ':ids:' .. string.format('%d', (turn + 1) % 3),
    turn = turn,
  }
end

local function enter_window(c, w)
  local before = c.turn
  if before ~= w.turn then
    redis.call('UNLINK', w.stale)
    if before and math.abs(w.turn - before) > 1 then
      redis.call('UNLINK', w.new, w.old)
    elseif before and w.turn > before then
      redis.call('UNLINK', w.new)
    end
    c.largest = math.floor(c.largest / 2)
    redis.call('HSET', c.base .. ':meta', 'turn', string.format('%d', w.turn), 'largest', string.format('%d', c.largest))
  end
end

-- Which of these ids are in the window: id -> true.
local function known_of(w, ids, now)
  local known = {}
  for _, key in ipairs({w.new, w.old}) do
    sliced(ids, function(part)
      local times = redis.call('HMGET', key, unpack(part))
      for i, id in ipairs(part) do
        if times[i] and now - tonumber(times[i]) < w.span then
          known[id] = true
        end
      end
    end)
  end
  return known
end

-- Ids in turn with the time at which they were stored.
local function remember(w, stored)
  sliced(stored, function(part)
    redis.call('HSET', w.new, unpack(part))
  end)
end

-- Who has the entry neither in flight nor delayed, and not settled by all.
local function queued(c, prio, id, positions, now)
  local prefix = rank_of(id) .. string.format('%03d', prio)
  local idle = redis.call('ZRANGEBYLEX', c.base .. ':idle', '[' .. prefix, '(' .. prefix .. '~', 'LIMIT', 0, 1)[1]
  if idle then
    return waits(c, idle)
  end
  local wanted = false
  for _, group in ipairs(c.groups) do
    local key = stream(c.base, prio)
    local place = key .. '\n' .. group
    if positions[place] == nil then
      positions[place] = delivered(key, group) or ''
    end
    if positions[place] < rank_of(id) then
      wanted = true
    else
      local pending = redis.call('XPENDING', key, group, id, id, 1)[1]
      if pending then
        wanted = true
        if pending[2] ~= WAITING then
          return false
        end
        local g = open_group(c.base, group)
        local rank = rank_of(id)
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', g.due, '(' .. now, '+inf')) do
          if string.sub(member, 1, 3) == string.format('%03d', prio) and string.sub(member, 44, 83) == rank then
            return false
          end
        end
      end
    end
  end
  return wanted
end

-- Drop the least urgent message that waits, of those the oldest, if it is no more urgent than the new one.
local function evict(c, priority, now)
  local all = c.bands
  for i = #all, 1, -1 do
    local prio = all[i]
    if prio < priority then
      return false
    end
    local key, from, positions = stream(c.base, prio), '-', {}
    while true do
      local entries = redis.call('XRANGE', key, from, '+', 'COUNT', 100)
      for _, entry in ipairs(entries) do
        local due = nil
        for f = 1, #entry[2], 2 do
          if entry[2][f] == 'ncdue' then
            due = tonumber(entry[2][f + 1])
          end
        end
        if (not due or due <= now) and queued(c, prio, entry[1], positions, now) then
          for _, group in ipairs(c.groups) do
            if redis.call('XACK', key, group, entry[1]) == 1 then
              forget_waiting(open_group(c.base, group), prio, entry[1], key_of(entry[2]))
            end
          end
          redis.call('XDEL', key, entry[1])
          local prefix = rank_of(entry[1]) .. string.format('%03d', prio)
          forget_idle(c, redis.call('ZRANGEBYLEX', c.base .. ':idle', '[' .. prefix, '(' .. prefix .. '~'))
          return true
        end
      end
      if #entries < 100 then
        break
      end
      from = '(' .. entries[#entries][1]
    end
  end
  return false
end

local function make_room(c, prio, now)
  if not c.capacity then
    return nil
  end
  c.open = c.open or unsettled(c)
  if c.open >= c.capacity and c.retains and #c.groups == 0 then
    trim(c, now, 1000)
    c.open = unsettled(c)
  end
  if c.open < c.capacity then
    return nil
  end
  if c.overflow == 'block' then
    return FULL
  elseif c.overflow == 'reject' then
    return REFUSED
  elseif c.overflow == 'drop_old' and evict(c, prio, now) then
    c.open = c.open - 1
    return nil
  end
  return DROPPED
end

-- `first` to `last`: the entry's fields in `args`.
local function add(c, prio, id, due, args, first, last)
  local key = stream(c.base, prio)
  if due then
    return redis.pcall('XADD', key, id, 'ncdue', string.format('%d', due), unpack(args, first, last))
  end
  return redis.pcall('XADD', key, id, unpack(args, first, last))
end

local function store(c, prio, now, due, args, first, last)
  new_band(c, prio)
  local id = next_id(c, now)
  local added = add(c, prio, id, due, args, first, last)
  if type(added) == 'table' and added.err and string.find(added.err, 'equal or smaller', 1, true) then
    local info = redis.call('XINFO', 'STREAM', stream(c.base, prio))
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        skip_to(c, info[i + 1])
      end
    end
    id = next_id(c, now)
    added = add(c, prio, id, due, args, first, last)
  end
  if type(added) == 'table' and added.err then
    error(added.err)
  end
  if #args[last] > c.largest then -- the body is its last field
    c.largest = #args[last]
    redis.call('HSET', c.base .. ':meta', 'largest', string.format('%d', c.largest))
  end
  c.added = (c.added or 0) + 1
  if #c.groups == 0 then
    keep(c, prio, {id}, true)
    redis.call('HINCRBY', c.base .. ':meta', 'unclaimed', 1)
  end
  if c.open then
    c.open = c.open + 1
  end
end

-- One message, whose parameters begin at args[at]: priority, id in the window, delay, not before, number of fields.
-- `known`: the ids in the window. `stored` gets what is to be remembered.
-- Its status, and where the next one begins.
local function publish(c, known, stored, now, args, at)
  local prio, id = tonumber(args[at]), args[at + 1]
  local delay, not_before, count = tonumber(args[at + 2]), tonumber(args[at + 3]), tonumber(args[at + 4])
  local first, last = at + 5, at + 4 + count
  if known[id] then
    return DUPLICATE, last + 1
  end
  local refusal = make_room(c, prio, now)
  if refusal then
    return refusal, last + 1
  end
  local due = nil
  if delay > 0 or not_before > now then
    due = math.max(now + delay, not_before)
  end
  store(c, prio, now, due, args, first, last)
  known[id] = true
  stored[#stored + 1] = id
  stored[#stored + 1] = string.format('%d', now)
  return STORED, last + 1
end
