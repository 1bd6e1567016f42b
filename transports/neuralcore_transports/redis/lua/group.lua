-- One group on one channel: what of its pending entries waits, for its turn, its time, or its key.
--   back:<group>    ready to be handed out again: score = priority, member = its place among equals, then its id
--   due:<group>     not yet: score = the server's milliseconds, member = priority, place, id
--   keys:<group>    who holds each key: an item
--   parked:<group>  waits for its key: member = the key's hash, priority, place, id
--   tries:<group>   of those that came back: how many attempts have failed, c where one was stored beforehand, s for a
--                   suspect, @ and its place where that is not its own rank

local function open_group(base, name)
  return {
    base = base, name = name,
    back = base .. ':back:' .. name, due = base .. ':due:' .. name, keys = base .. ':keys:' .. name,
    parked = base .. ':parked:' .. name, tries = base .. ':tries:' .. name,
  }
end

local function key_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'ce_partitionkey' then
      return fields[i + 1]
    end
  end
  return nil
end

local function to_back(g, prio, place, rank)
  redis.call('ZADD', g.back, prio, place .. rank)
end

-- Its key is free, and the next of those that wait for it is ready. Nothing when the key is another one's.
local function free_key(g, key, item)
  local holder = redis.call('HGET', g.keys, key)
  if holder and holder ~= item then
    return
  end
  local prefix = redis.sha1hex(key)
  local following = redis.call('ZRANGEBYLEX', g.parked, '[' .. prefix, '(' .. prefix .. '~', 'LIMIT', 0, 1)[1]
  if holder then
    redis.call('HDEL', g.keys, key)
  end
  if following then
    redis.call('ZREM', g.parked, following)
    to_back(g, tonumber(string.sub(following, 41, 43)), string.sub(following, 44, 83), string.sub(following, 84, 123))
  end
end

local function park(g, key, prio, place, rank)
  redis.call('ZADD', g.parked, 0, redis.sha1hex(key) .. string.format('%03d', prio) .. place .. rank)
end

-- An entry is gone, whose key nobody can tell any more: it holds none, and what waits for keys that nobody has is ready.
local function forget_gone(g, item)
  redis.call('HDEL', g.tries, item)
  local held, keys = {}, redis.call('HGETALL', g.keys)
  for i = 1, #keys, 2 do
    if keys[i + 1] == item then
      redis.call('HDEL', g.keys, keys[i])
    else
      held[redis.sha1hex(keys[i])] = true
    end
  end
  for _, member in ipairs(redis.call('ZRANGE', g.parked, 0, -1)) do
    local key = string.sub(member, 1, 40)
    if not held[key] then
      held[key] = true
      redis.call('ZREM', g.parked, member)
      to_back(g, tonumber(string.sub(member, 41, 43)), string.sub(member, 44, 83), string.sub(member, 84, 123))
    end
  end
end

-- What is known of one band's entries is nothing any more: all of them come anew.
local function forget_band(g, prio)
  local band = string.format('%03d', prio)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', g.back, prio, prio)) do
    redis.call('ZREM', g.back, member)
  end
  for _, member in ipairs(redis.call('ZRANGE', g.due, 0, -1)) do
    if string.sub(member, 1, 3) == band then
      redis.call('ZREM', g.due, member)
    end
  end
  for _, member in ipairs(redis.call('ZRANGE', g.parked, 0, -1)) do
    if string.sub(member, 41, 43) == band then
      redis.call('ZREM', g.parked, member)
    end
  end
  for _, item in ipairs(redis.call('HKEYS', g.tries)) do
    if string.sub(item, 1, 3) == band then
      redis.call('HDEL', g.tries, item)
    end
  end
  local keys = redis.call('HGETALL', g.keys)
  for i = 1, #keys, 2 do
    if string.sub(keys[i + 1], 1, 3) == band then
      free_key(g, keys[i], keys[i + 1])
    end
  end
end

-- Nothing of it waits its turn any more; what else its key holds up goes on.
local function forget_waiting(g, prio, id, key)
  local rank = rank_of(id)
  if key then
    local prefix = redis.sha1hex(key) .. string.format('%03d', prio)
    for _, member in ipairs(redis.call('ZRANGEBYLEX', g.parked, '[' .. prefix, '(' .. prefix .. '~')) do
      if string.sub(member, 84, 123) == rank then
        redis.call('ZREM', g.parked, member)
      end
    end
  end
  if redis.call('ZREM', g.back, rank .. rank) == 0 then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', g.back, prio, prio)) do
      if string.sub(member, 41, 80) == rank then
        redis.call('ZREM', g.back, member)
      end
    end
  end
  redis.call('HDEL', g.tries, item_of(prio, id))
  if key then
    free_key(g, key, item_of(prio, id))
  end
end

-- What has become due is ready; at most `limit`. The milliseconds until the next, or -1.
local function wake_due(g, now, limit)
  local following = redis.call('ZRANGE', g.due, 0, 0, 'WITHSCORES')[2]
  if following and limit > 0 and tonumber(following) <= now then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', g.due, '-inf', now, 'LIMIT', 0, limit)) do
      redis.call('ZREM', g.due, member)
      to_back(g, tonumber(string.sub(member, 1, 3)), string.sub(member, 4, 43), string.sub(member, 44, 83))
    end
    following = redis.call('ZRANGE', g.due, 0, 0, 'WITHSCORES')[2]
  end
  return following and math.max(0, tonumber(following) - now) or -1
end

-- It is nobody's any more, and ready, in its old place unless told otherwise.
local function give_back(g, prio, id, key, place)
  local item = item_of(prio, id)
  if key then
    free_key(g, key, item)
  end
  to_back(g, prio, place or rank_of(id), rank_of(id))
end
