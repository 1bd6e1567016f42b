-- What all scripts share. A channel's keys begin with its base; docs/redis.md has the layout.

-- Milliseconds of the server's clock. `clock` is '' but in tests, which say what time it is.
local function now_ms(clock)
  if clock ~= '' then
    return tonumber(clock)
  end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- An entry's id "ms-n" as 40 digits that sort as the ids do, and back.
local function rank_of(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #n) .. n
end

local function id_of(rank)
  return string.match(string.sub(rank, 1, 20), '^0*(%d+)$') .. '-' .. string.match(string.sub(rank, 21, 40), '^0*(%d+)$')
end

-- An entry among those of all bands: three digits of priority, then its rank.
local function item_of(prio, id)
  return string.format('%03d', prio) .. rank_of(id)
end

local function prio_of(item)
  return tonumber(string.sub(item, 1, 3))
end

local function entry_id_of(item)
  return id_of(string.sub(item, 4, 43))
end

local function stream(base, prio)
  return base .. ':p:' .. string.format('%d', prio)
end

-- Commands take some thousands of arguments at once: calls `each` with slices of `list`.
local function sliced(list, each)
  for first = 1, #list, 1000 do
    local part = {}
    for i = first, math.min(first + 999, #list) do
      part[#part + 1] = list[i]
    end
    each(part)
  end
end

-- What waits (for its turn, its time or its key) stays pending, under this name.
local WAITING = '_waiting'

local function set_waiting(base, group, prio, ids)
  sliced(ids, function(part)
    local args = {stream(base, prio), group, WAITING, 0}
    for _, id in ipairs(part) do
      args[#args + 1] = id
    end
    args[#args + 1] = 'FORCE'
    args[#args + 1] = 'JUSTID'
    redis.call('XCLAIM', unpack(args))
  end)
end
