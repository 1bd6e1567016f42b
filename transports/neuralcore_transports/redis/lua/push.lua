-- What is stored is handed out at once to those who wait for it, with its lease, on their topics.

local MOST_PUSHED = 50
local HANDS_OUT = false -- not before answers to fetches and what is handed out here come on one connection, in one order

local function take_back_all(c, g, found)
  for _, entry in ipairs(found) do
    local prio, id, fields = entry[1], entry[2], entry[5]
    local _, _, _, place = tries_of(g, item_of(prio, id))
    set_waiting(c.base, g.name, prio, {id})
    give_back(g, prio, id, key_of(fields), place)
  end
end

local function push_to(prefix, c, g, who, now)
  if c.taken and redis.call('HEXISTS', c.base .. ':taken', who.group .. '\n' .. who.consumer) == 1 then
    redis.call('HDEL', c.base .. ':waiting', who.field)
    who.credit = 0
    tell(prefix, who.session, 'ready\n' .. c.base .. '\n' .. who.group)
    return 0, true
  end
  local found, more, lost, due = fetch(c, g, who.consumer, now, math.min(who.credit, MOST_PUSHED), who.below)
  if #found == 0 then
    return 0, more
  end
  local parts = {'given\n'}
  encode(parts, {c.base, who.group, who.consumer, due, lost, found})
  local message = table.concat(parts)
  if #message <= MOST_BYTES and tell(prefix, who.session, message) then
    if who.credit > #found then
      wait_here(c.base, who.session, who.group, who.credit - #found, who.below, who.consumer)
    else
      redis.call('HDEL', c.base .. ':waiting', who.field)
    end
    who.credit = who.credit - #found
    return #found, more
  end
  take_back_all(c, g, found)
  redis.call('HDEL', c.base .. ':waiting', who.field)
  who.credit = 0
  if #message > MOST_BYTES then
    tell(prefix, who.session, 'ready\n' .. c.base .. '\n' .. who.group)
  end
  return 0, more
end

-- `n` more may be ready. With a `group`, only for that one.
local function push(prefix, c, now, n, group)
  local waiting = waiting_of(c.base, group)
  if #waiting == 0 then
    return
  end
  if CLUSTER or not HANDS_OUT then -- in a cluster every node would pass the messages on
    ring(prefix, c.base, n, group)
    return
  end
  table.sort(waiting, function(one, other) return one.credit > other.credit end)
  local over = {}
  for _, who in ipairs(waiting) do
    local g = open_group(c.base, who.group)
    while not over[who.group] and who.credit > 0 do
      local given, more = push_to(prefix, c, g, who, now)
      over[who.group] = not more
      if given == 0 then
        break
      end
    end
    if not over[who.group] and who.credit == 0 and redis.call('HDEL', c.base .. ':waiting', who.field) == 1 then
      over[who.group] = tell(prefix, who.session, 'ready\n' .. c.base .. '\n' .. who.group)
    end
  end
end
