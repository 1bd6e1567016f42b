-- What owners say of what they hold. A lease is a pending entry of its consumer: whoever took it is another consumer.

local SETTLED, LOST, SKIPPED = 1, 2, 3

local function owned(key, group, id, consumer)
  local pending = redis.call('XPENDING', key, group, id, id, 1)[1]
  return pending and pending[2] == consumer
end

-- Attempts that have failed; whether this one was stored before its handler was called; whether it is a suspect; its place
-- among equals, where that is not its own rank.
local function tries_of(g, item)
  local text = redis.call('HGET', g.tries, item) or ''
  local failed, flags, place = string.match(text, '^(%d*)([cs]*)(.*)$')
  return tonumber(failed) or 0, string.find(flags, 'c', 1, true) ~= nil, string.find(flags, 's', 1, true) ~= nil,
    place ~= '' and string.sub(place, 2) or nil
end

local function set_tries(g, item, failed, charged, suspect, place)
  if failed == 0 and not charged and not suspect and not place then
    redis.call('HDEL', g.tries, item)
  else
    redis.call('HSET', g.tries, item,
      string.format('%d', failed) .. (charged and 'c' or '') .. (suspect and 's' or '') .. (place and '@' .. place or ''))
  end
end

-- Acknowledge these of one band. `taken`: the consumer may have lost some of its leases.
local function ack(c, g, consumer, prio, ids, taken)
  local key, mine, verdicts = stream(c.base, prio), ids, {}
  if taken then
    mine = {}
    for i, id in ipairs(ids) do
      if owned(key, g.name, id, consumer) then
        mine[#mine + 1] = id
        verdicts[i] = SETTLED
      else
        verdicts[i] = LOST
      end
    end
  end
  if #mine > 0 then
    sliced(mine, function(part)
      redis.call('XACK', key, g.name, unpack(part))
    end)
    finish(c, prio, mine, g.name)
  end
  return verdicts
end

-- Any other outcome, of one entry.
local function settle(c, g, consumer, prio, id, outcome, key, delay, pass, now)
  local item = item_of(prio, id)
  if not owned(stream(c.base, prio), g.name, id, consumer) then
    return LOST
  end
  local failed, charged, suspect, place = tries_of(g, item)
  if outcome == 'T' then -- an attempt more, before a suspect's handler is called
    set_tries(g, item, charged and failed or failed + 1, true, suspect, place)
    return SETTLED
  end
  set_waiting(c.base, g.name, prio, {id})
  if outcome == 'R' then
    set_tries(g, item, charged and failed - 1 or failed, false, suspect, place)
    give_back(g, prio, id, key, place)
    return SETTLED
  end
  if not key or pass then
    place = rank_of(next_id(c, now))
    if key then
      free_key(g, key, item)
    end
  end
  set_tries(g, item, charged and failed or failed + 1, false, false, place)
  place = place or rank_of(id)
  if delay > 0 then
    redis.call('ZADD', g.due, now + delay, string.format('%03d', prio) .. place .. rank_of(id))
  else
    to_back(g, prio, place, rank_of(id))
  end
  return SETTLED
end
