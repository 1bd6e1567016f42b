-- Hand out what is most urgent: up to `limit`, of priorities below `below`. Answers a list of
-- {priority, id, attempts failed, 1 if suspect, fields, 1 if it came back}, whether there may be more, what was lost
-- {streams on which the group was missing, pending entries that somebody else has deleted}, and the milliseconds until the
-- next comes due or -1.

local MOST = 2000 -- entries that one call looks at
local MOST_BYTES_READ = 1048576 -- about so many bytes, too: everybody else waits meanwhile
local AT_ONCE = 65536 -- about so many bytes are read by one command: large answers are copied often
local FEW = 16 -- entries are read to see how large they are

local function fetch(c, g, consumer, now, limit, below)
  local out, looked, recreated, trimmed, delayed = {}, 0, 0, 0, false
  local read, bytes = 0, 0 -- entries, and what they hold

  local function left()
    return bytes < MOST_BYTES_READ and limit - #out or 0
  end

  -- How many more to read at once, by the size of those before, or of the largest that was published lately.
  local function some()
    local size = read > 0 and bytes / read or math.max(c.largest, AT_ONCE / FEW)
    return math.min(left(), math.max(1, math.floor(AT_ONCE / (size + 1))))
  end

  -- Its key, and when it is due.
  local function weigh(fields)
    local key, due = nil, nil
    for i = 1, #fields, 2 do
      local name, value = fields[i], fields[i + 1]
      bytes = bytes + #value
      if name == 'ncdue' then
        due = tonumber(value)
      elseif name == 'ce_partitionkey' then
        key = value
      end
    end
    read = read + 1
    return key, due
  end

  -- Somebody has destroyed the group on this stream: it begins with what is there.
  local function recreate(prio)
    redis.call('XGROUP', 'CREATE', stream(c.base, prio), g.name, '0', 'MKSTREAM')
    forget_band(g, prio)
    recreated = recreated + 1
  end

  -- Under a lease unless it has to wait. `place`: of one that came back.
  local function offer(prio, id, fields, key, place, waiting)
    local item = nil
    if key then
      item = item_of(prio, id)
      local holder = redis.call('HGET', g.keys, key)
      if holder and holder ~= item then
        park(g, key, prio, place or rank_of(id), rank_of(id))
        waiting[#waiting + 1] = id
        return
      end
      redis.call('HSET', g.keys, key, item)
    end
    local tries = place and redis.call('HGET', g.tries, item or item_of(prio, id))
    if not tries then
      out[#out + 1] = {prio, id, 0, 0, fields, place and 1 or 0}
      return
    end
    local failed, flags = string.match(tries, '^(%d*)([cs]*)')
    local suspect = string.find(flags, 's', 1, true) and 1 or 0
    out[#out + 1] = {prio, id, tonumber(failed) or 0, suspect, fields, 1}
  end

  -- Of those that came back, in order: `members` of g.back.
  local function take_back(prio, members)
    local key = stream(c.base, prio)
    local args = {key, g.name, consumer, 0}
    for _, member in ipairs(members) do
      args[#args + 1] = id_of(string.sub(member, 41, 80))
    end
    local found = {}
    for _, entry in ipairs(redis.call('XCLAIM', unpack(args))) do
      if entry and entry[1] and entry[2] then
        found[entry[1]] = entry[2]
      end
    end
    local waiting = {}
    for _, member in ipairs(members) do
      local id = id_of(string.sub(member, 41, 80))
      redis.call('ZREM', g.back, member)
      if found[id] then
        offer(prio, id, found[id], weigh(found[id]), string.sub(member, 1, 40), waiting)
      else -- somebody has deleted it
        redis.call('XACK', key, g.name, id)
        forget_gone(g, item_of(prio, id))
        trimmed = trimmed + 1
      end
    end
    if #waiting > 0 then
      set_waiting(c.base, g.name, prio, waiting)
    end
  end

  -- Up to `count` that the group was not given yet; how many there were.
  local function take_fresh(prio, count)
    local key = stream(c.base, prio)
    count = string.format('%d', count)
    local answer = redis.pcall('XREADGROUP', 'GROUP', g.name, consumer, 'COUNT', count, 'STREAMS', key, '>')
    if answer and answer.err then
      if not string.find(answer.err, 'NOGROUP', 1, true) then
        error(answer.err)
      end
      recreate(prio)
      answer = redis.call('XREADGROUP', 'GROUP', g.name, consumer, 'COUNT', count, 'STREAMS', key, '>')
    end
    if not answer or not answer[1] then
      return 0
    end
    local entries, waiting = answer[1][2], {}
    for _, entry in ipairs(entries) do
      local id, fields = entry[1], entry[2]
      local key, due = weigh(fields)
      if due and due > now then
        redis.call('ZADD', g.due, due, string.format('%03d', prio) .. rank_of(id) .. rank_of(id))
        waiting[#waiting + 1] = id
        delayed = true
      else
        offer(prio, id, fields, key, nil, waiting)
      end
    end
    if #waiting > 0 then
      set_waiting(c.base, g.name, prio, waiting)
    end
    return #entries
  end

  local quiet = redis.call('EXISTS', g.due, g.back) == 0 -- nothing has come back
  local due = quiet and -1 or wake_due(g, now, 1000)
  local more = false
  for _, prio in ipairs(c.bands) do
    if prio >= below then
      break
    end
    local position = nil
    while left() > 0 and looked < MOST do
      local members = quiet and {} or redis.call('ZRANGEBYSCORE', g.back, prio, prio, 'LIMIT', 0, left())
      local before, following = {}, nil
      if #members > 0 then
        -- What was nacked comes behind its equals of that time, which may not have been handed out yet.
        position = delivered(stream(c.base, prio), g.name)
        if not position then
          recreate(prio)
          members = {}
        end
        for _, member in ipairs(members) do
          if string.sub(member, 1, 40) <= position then
            before[#before + 1] = member
          elseif not following then
            following = member
          end
        end
      end
      if #before > 0 then
        local slice = {unpack(before, 1, math.min(#before, some()))}
        looked = looked + #slice
        take_back(prio, slice)
      elseif following then
        local ahead = redis.call(
          'XRANGE', stream(c.base, prio), '(' .. id_of(position), id_of(string.sub(following, 1, 40)), 'COUNT', some())
        looked = looked + #ahead + 1
        if #ahead > 0 then
          take_fresh(prio, #ahead)
        else
          take_back(prio, {following})
        end
      else
        local wanted = some()
        local count = take_fresh(prio, wanted)
        looked = looked + count
        if count < wanted then
          break
        end
      end
    end
    if left() == 0 or looked >= MOST then
      more = true
      break
    end
  end
  if trimmed > 0 then
    redis.call('HINCRBY', c.base .. ':meta', 'trimmed', trimmed)
  end
  return out, more, {recreated, trimmed}, delayed and wake_due(g, now, 0) or due
end
